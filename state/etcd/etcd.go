// Package etcd is the engine of control state on disk: an etcd server within the
// process, which opens no socket.
//
// It hides etcd entirely, so that a manager group or an external etcd cluster is
// a matter of this package alone: callers use the Store of package state that
// Open returns. Only the manager imports it, because it makes a small program 15 MB larger.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/binnacle-project/binnacle/state"
)

const (
	// defaultQuotaBytes bounds the database file. Control state of thousands
	// of nodes with full history stays under 200 MiB; etcd's own default of
	// 2 GiB would only hide a leak for longer.
	defaultQuotaBytes = 1 << 30
	// defaultMinFreeBytes is two log segments and one step of growth of the
	// database file, twice: a full disk would end the process (see guard.go).
	defaultMinFreeBytes = 128 << 20

	// giveUpAfter bounds every call whose context has no earlier deadline.
	giveUpAfter = 10 * time.Second

	memberName = "binnacle"

	// tickMs and electionMs suit a group of one, which elects itself: ready
	// after a quarter of a second instead of up to a second. Each tick wakes
	// raft: at 10 ms that alone took 1.2 % of a core, at 50 and at 100 ms nothing
	// that can be told from the rest. A group over a network needs etcd's own
	// 100 and 1000.
	tickMs     = 50
	electionMs = 250
	// flushEvery is how often what was written goes from memory into the database
	// file. The log has it already: a crash has half a second more to replay.
	flushEvery = 500 * time.Millisecond

	// snapshotEvery and catchUpEntries bound the writes that raft keeps in
	// memory; etcd's 10,000 and 5,000 of up to 1 MiB each would be far too many.
	snapshotEvery  = 1000
	catchUpEntries = 500

	// walSegmentBytes is preallocated twice on disk; etcd's 64 MB would be most
	// of what a small cluster ever writes.
	walSegmentBytes = 16 << 20

	// readyWithin bounds the start, which takes 0.3 s, and more only with a
	// long log on a slow disk.
	readyWithin = 60 * time.Second

	// tryFor is the deadline of one try. A request that got lost would
	// otherwise hang for etcd's own 7 s.
	tryFor = time.Second
)

var setWALSegment = sync.OnceFunc(func() { wal.SegmentSizeBytes = walSegmentBytes })

// Options say where and how control state is kept.
type Options struct {
	// Dir is the directory of this state alone. It is made if missing, mode
	// 0700, and locked while open.
	Dir string
	// Log may be nil. etcd's own messages come through it too, its Info as
	// Debug.
	Log *slog.Logger
	// QuotaBytes bounds the database file; 0 means 1 GiB. At the bound writes
	// answer ErrReadOnly until history was compacted. Higher costs disk (three
	// times as much, with the copy of a defragmentation) and memory.
	QuotaBytes int64
	// MinFreeBytes is the free space on Dir's disk below which writes answer
	// ErrReadOnly; 0 means 128 MiB.
	MinFreeBytes uint64
	// Metrics receives binnacle_state_* metrics; nil means a private set.
	Metrics *metrics.Set
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.QuotaBytes == 0 {
		o.QuotaBytes = defaultQuotaBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFreeBytes
	}
}

// Open opens the state in o.Dir, or begins a new one there. The Store is ready
// when Open returns, usually within 300 ms. A damaged log gives ErrDamaged and
// says how to go on; nothing is changed then.
func Open(ctx context.Context, o Options) (*state.Store, error) {
	o.setDefaults()
	return state.OpenOn(ctx, state.Options{Log: o.Log, Metrics: o.Metrics}, func(f state.Feed) (state.Engine, error) {
		return openEngine(ctx, o, f)
	})
}

// engine is a state.Engine on an etcd server within this process.
type engine struct {
	log     *slog.Logger
	retries *metrics.Counter
	feed    state.Feed
	lock    *os.File
	server  *embed.Etcd
	client  *clientv3.Client
	slots   chan *slot
	guard   *guard
	quota   int64
	// relieve asks the maintenance to make room at the quota.
	relieve chan struct{}

	gauges []func() // unregister them
	stop   context.CancelFunc
	wg     sync.WaitGroup // the watch and the maintenance
}

// openEngine returns when the server is ready and its watch is open. The options
// have their defaults.
func openEngine(ctx context.Context, o Options, f state.Feed) (_ *engine, err error) {
	o.Log = o.Log.With("component", "state")
	if o.Dir == "" {
		return nil, errors.New("control state needs a directory: Options.Dir is empty")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of control state: %w", err)
	}
	e := &engine{
		log: o.Log, retries: o.Metrics.GetOrCreateCounter(`binnacle_state_retries_total`), feed: f, quota: o.QuotaBytes,
		relieve: make(chan struct{}, 1), guard: newGuard(o.Dir, o.MinFreeBytes, o.Log),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.lock, err = lockDir(o.Dir); err != nil {
		return e, err
	}
	if err := e.guard.checkStart(); err != nil {
		return e, err
	}
	if err := e.start(ctx, o); err != nil {
		return e, err
	}
	if err := e.openSlots(ctx); err != nil {
		return e, err
	}
	background, stop := context.WithCancel(context.Background())
	e.stop = stop
	if err := e.startWatch(ctx, background); err != nil {
		return e, err
	}
	e.wg.Go(func() { e.maintain(background) })
	e.registerGauges(o.Metrics)
	return e, nil
}

// start starts the server without any listener.
func (e *engine) start(ctx context.Context, o Options) error {
	setWALSegment()
	cfg := embed.NewConfig()
	cfg.Name = memberName
	cfg.Dir = filepath.Join(o.Dir, "etcd")
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	// A placeholder: nobody connects to it, but a member must have one.
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(memberName)
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs = tickMs, electionMs
	cfg.BackendBatchInterval = flushEvery
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshotEvery, catchUpEntries
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = o.QuotaBytes
	cfg.MaxTxnOps = 2 * state.MaxTxnOps // our own bookkeeping rides along
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZapLogger(o.Log, o.Dir))

	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return damaged(o.Dir, err)
	}
	e.server = server
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("start control state in %s: %w", o.Dir, err)
	case <-ctx.Done():
		return fmt.Errorf("start control state in %s: not ready: %w", o.Dir, ctx.Err())
	}
	e.client = v3client.New(server.Server)
	return nil
}

// damaged says what an operator can do about a log that etcd refuses.
func damaged(dir string, err error) error {
	return fmt.Errorf("open control state in %s: %w: %w. "+
		"A power cut or a failing disk can do this; nothing was changed. Move the directory away, keep it, and restore the newest backup into an empty one", dir, state.ErrDamaged, err)
}

// Close undoes what was opened, in the opposite order. The client goes before
// the server.
func (e *engine) Close() error {
	var errs []error
	for _, unregister := range e.gauges {
		unregister()
	}
	if e.stop != nil {
		e.stop()
	}
	if e.client != nil {
		if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("close the client: %w", err))
		}
	}
	e.wg.Wait()
	if e.server != nil {
		e.server.Close()
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// scanPage is the number of keys read at once.
const scanPage = 512

// registerGauges shows what the server knows, until close.
func (e *engine) registerGauges(set *metrics.Set) {
	backend := e.server.Server.Backend()
	for name, value := range map[string]func() float64{
		`binnacle_state_db_bytes`:        func() float64 { return float64(backend.Size()) },
		`binnacle_state_db_used_bytes`:   func() float64 { return float64(backend.SizeInUse()) },
		`binnacle_state_quota_bytes`:     func() float64 { return float64(e.quota) },
		`binnacle_state_disk_free_bytes`: func() float64 { return float64(e.guard.lastFree()) },
		`binnacle_state_read_only`: func() float64 {
			if e.guard.isLow() {
				return 1
			}
			return 0
		},
	} {
		set.UnregisterMetric(name) // of an earlier life on the same set
		set.NewGauge(name, value)
		e.gauges = append(e.gauges, func() { set.UnregisterMetric(name) })
	}
}
