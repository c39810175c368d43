package state

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
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	memberName = "binnacle"

	// tickMs and electionMs suit a group of one, which elects itself: ready
	// after some 50 ms instead of up to a second. Idle cost is about 1 % of a
	// core. A group over a network needs etcd's own 100 and 1000.
	tickMs     = 10
	electionMs = 100

	// snapshotEvery and catchUpEntries bound the writes that raft keeps in
	// memory; etcd's 10,000 and 5,000 of up to 1 MiB each would be far too many.
	snapshotEvery  = 1000
	catchUpEntries = 500

	// walSegmentBytes is preallocated twice on disk; etcd's 64 MB would be most
	// of what a small cluster ever writes.
	walSegmentBytes = 16 << 20

	// readyWithin bounds the start, which takes 0.1 s, and more only with a
	// long log on a slow disk.
	readyWithin = 60 * time.Second

	// tryFor is the deadline of one try. A request that got lost would
	// otherwise hang for etcd's own 7 s.
	tryFor = time.Second
)

var setWALSegment = sync.OnceFunc(func() { wal.SegmentSizeBytes = walSegmentBytes })

// etcd is the engine on an etcd server within this process.
type etcd struct {
	log    *slog.Logger
	m      storeMetrics
	hub    *hub
	lock   *os.File
	server *embed.Etcd
	client *clientv3.Client
	slots  chan *slot
	guard  *guard
	quota  int64
	// relieve asks the maintenance to make room at the quota.
	relieve chan struct{}

	gauges []func() // unregister them
	stop   context.CancelFunc
	wg     sync.WaitGroup // the watch and the maintenance
}

// openEtcd returns when the server is ready and its watch is open.
func openEtcd(ctx context.Context, o Options, h *hub, m storeMetrics) (_ *etcd, err error) {
	if o.Dir == "" {
		return nil, errors.New("control state needs a directory: Options.Dir is empty")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of control state: %w", err)
	}
	e := &etcd{log: o.Log, m: m, hub: h, quota: o.QuotaBytes, relieve: make(chan struct{}, 1), guard: newGuard(o.Dir, o.MinFreeBytes, o.Log)}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
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
func (e *etcd) start(ctx context.Context, o Options) error {
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
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshotEvery, catchUpEntries
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = o.QuotaBytes
	cfg.MaxTxnOps = 2 * MaxTxnOps // our own bookkeeping rides along
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
		"A power cut or a failing disk can do this; nothing was changed. Move the directory away, keep it, and restore the newest backup into an empty one", dir, ErrDamaged, err)
}

// close undoes what was opened, in the opposite order. The client goes before
// the server.
func (e *etcd) close() error {
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

func (e *etcd) get(ctx context.Context, key string) (KV, error) {
	var resp *clientv3.GetResponse
	err := e.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = e.client.Get(ctx, key)
		return err
	})
	if err != nil {
		return KV{}, err
	}
	if len(resp.Kvs) == 0 {
		return KV{}, ErrNotFound
	}
	kv := resp.Kvs[0]
	return KV{Key: key, Value: kv.Value, Version: kv.ModRevision}, nil
}

// scanPage is the number of keys read at once.
const scanPage = 512

func (e *etcd) scan(ctx context.Context, from, end string, fn func(KV) error) error {
	var rev int64 // that of the first page, for all
	for {
		var resp *clientv3.GetResponse
		err := e.retry(ctx, func(ctx context.Context) (err error) {
			resp, err = e.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(scanPage), clientv3.WithRev(rev))
			return err
		})
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := fn(KV{Key: string(kv.Key), Value: kv.Value, Version: kv.ModRevision}); err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
		rev = resp.Header.Revision
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// startWatch opens the one watch over all callers' keys and copies it to the
// hub until ctx ends. It returns when the watch has begun.
func (e *etcd) startWatch(open, ctx context.Context) error {
	var rev int64
	err := e.retry(open, func(ctx context.Context) error {
		resp, err := e.client.Get(ctx, epochKey)
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("begin to watch: %w", err)
	}
	e.wg.Go(func() { e.watch(ctx, rev+1) })
	return nil
}

// watch follows the store from revision rev on. When etcd ends the watch, it
// begins a new one and tells all readers to read again.
func (e *etcd) watch(ctx context.Context, rev int64) {
	for ctx.Err() == nil {
		for resp := range e.client.Watch(ctx, "\x00", clientv3.WithRange(endOfKeys), clientv3.WithRev(rev)) {
			if err := resp.Err(); err != nil {
				if ctx.Err() == nil {
					e.log.Warn("watch of control state broke; all readers read again", "err", err)
				}
				rev = 0
				break
			}
			if len(resp.Events) == 0 {
				continue
			}
			changes := make([]Change, len(resp.Events))
			for i, ev := range resp.Events {
				changes[i] = Change{
					KV:      KV{Key: string(ev.Kv.Key), Value: ev.Kv.Value, Version: ev.Kv.ModRevision},
					Deleted: ev.Type == clientv3.EventTypeDelete,
				}
			}
			rev = resp.Header.Revision + 1
			e.hub.publish(changes)
		}
		if ctx.Err() != nil {
			return
		}
		if rev == 0 {
			e.hub.resync()
		}
		select { // a watch that ends at once must not spin
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// retry calls try with a short deadline until it gives an answer, the caller's
// context ends, or giveUpAfter has passed.
func (e *etcd) retry(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, giveUpAfter)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		one, cancelOne := context.WithTimeout(ctx, tryFor)
		err := try(one)
		cancelOne()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, rpctypes.ErrStopped):
			return fmt.Errorf("%w: %w", ErrClosed, err)
		case !retryable(err):
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
		e.m.retries.Inc()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		case <-time.After(wait):
		}
	}
}

// retryable reports whether the same request may do better in a moment. Timeouts
// and the lack of a leader heal; a full disk, a failed condition and a stopped
// server do not.
func retryable(err error) bool {
	switch {
	case errors.Is(err, rpctypes.ErrStopped), errors.Is(err, rpctypes.ErrNoSpace):
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, rpctypes.ErrNotLeader), errors.Is(err, rpctypes.ErrTooManyRequests):
		return true
	}
	code := status.Code(err)
	var etcdErr rpctypes.EtcdError
	if errors.As(err, &etcdErr) {
		code = etcdErr.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// registerGauges shows what the server knows, until close.
func (e *etcd) registerGauges(set *metrics.Set) {
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
