package activity

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

// Aggregator keeps the live aggregates. All methods are safe for concurrent
// use. What the read methods return is shared by all readers: treat it as
// read-only.
type Aggregator struct {
	o    Options
	log  *slog.Logger
	self counters

	mu        sync.Mutex // guards all below
	senders   map[binnacle.NodeID]*sender
	keys      index
	rollups   map[rollupID]*rollup
	layouts   layouts
	places    map[place]*place
	streams   int
	bakes     map[binnacle.Group]bool
	chart     chart
	endpoints callers
	in        ingest // the work space of WriteMetrics
	reading   work
	started   time.Time
	restored  int64 // Unix ns of the checkpoint that was restored; 0 is none
	settling  bool  // the store has not been read yet

	small   [numWindows]atomic.Pointer[snapshot]
	matrix  [numWindows]atomic.Pointer[matrix]
	asked   [numWindows]atomic.Int64 // when the matrix was last read, Unix s
	making  sync.Mutex               // one matrix at a time; before mu
	warming atomic.Bool              // Run keeps the matrices fresh
	warmed  [numWindows]int64        // the end that Run has kept the pairs' sums of
}

// Open restores the checkpoint of Options.Dir. A checkpoint that is damaged is
// put aside, named in the log, and costs the totals, not the start. Run then
// refills the windows.
func Open(o Options) (*Aggregator, error) {
	if o.MaxStreams == 0 {
		o.MaxStreams = 1_000_000
	}
	if o.MaxStreamsPerSender == 0 {
		o.MaxStreamsPerSender = 20_000
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 300_000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = vm.NewSet()
	}
	a := &Aggregator{
		o:         o,
		log:       o.Log.With("component", "activity"),
		senders:   map[binnacle.NodeID]*sender{},
		rollups:   map[rollupID]*rollup{},
		bakes:     map[binnacle.Group]bool{},
		endpoints: callers{},
		started:   time.Now(),
		settling:  o.Rollups != nil,
	}
	a.in.now = time.Now
	a.self = newCounters(o.Metrics, a)
	if o.Dir != "" {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the activity directory: %w", err)
		}
		if err := a.restore(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// SetBake says whether a group is in a bake: its roll-ups are then written
// every 2 s, not every 10.
func (a *Aggregator) SetBake(g binnacle.Group, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if on {
		a.bakes[g] = true
	} else {
		delete(a.bakes, g)
	}
}

// Forget drops a node: its aggregates, its streams and its requests_total. Its
// roll-ups end. The manager calls it when a node is forgotten or revoked.
func (a *Aggregator) Forget(id binnacle.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.senders[id]; s != nil {
		a.streams -= len(s.streams)
		delete(a.senders, id)
	}
	for kid := range a.keys.byID {
		if kid.node == id && (kid.kind == kindNode || kid.kind == kindNodeBackend) {
			a.keys.drop(kid)
		}
	}
	for i := range a.small {
		a.small[i].Store(nil)
		a.matrix[i].Store(nil)
	}
}

// Unmanaged lists the unmanaged senders, ordered by id. Those that were silent
// for a day are forgotten.
func (a *Aggregator) Unmanaged() []Sender {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []Sender{}
	for _, s := range a.senders {
		if !s.managed {
			out = append(out, s.info)
		}
	}
	slices.SortFunc(out, func(x, y Sender) int { return strings.Compare(string(x.ID), string(y.ID)) })
	return out
}

// Run ticks the windows, writes roll-ups and checkpoints, and forgets what is
// old, until ctx ends; then it writes both once more, so that a restart
// continues exactly. What comes in after that is told again by the next point
// of each cumulative stream. The store must outlive Run.
func (a *Aggregator) Run(ctx context.Context) error {
	if err := a.refill(ctx); err != nil {
		a.log.Warn("windows could not be refilled from the store: they fill up again as telemetry comes in", "err", err)
	}
	return a.loop(ctx)
}
