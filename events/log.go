// Package events is the log of what happened in a cluster: who did what, when,
// with what outcome. An event is durable before Append returns, its id is higher
// than that of every event before it, and the oldest are dropped beyond a number.
//
// It knows nothing of what the events are about; the features append, and the
// manager serves the log and its stream. Counters per kind are the form in
// which metrics and annotations see it.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

const (
	// DefaultKeep is the number of events kept: some weeks of a busy cluster,
	// in about 5 MB of memory.
	DefaultKeep = 10_000
	// MaxEventBytes bounds one event as stored.
	MaxEventBytes = 64 << 10

	prefix = "events/"
	// batchMax is the number of events stored in one transaction. With as many
	// deletions of old ones it stays within state.MaxTxnOps.
	batchMax = state.MaxTxnOps / 2
	// batchBytes keeps a batch within the bytes of a transaction.
	batchBytes = state.MaxValueBytes
)

// Options say where the log is kept.
type Options struct {
	Store *state.Store
	// Keep is the number of events kept; 0 means DefaultKeep.
	Keep int
	Log  *slog.Logger
	// Metrics receives binnacle_events_*; nil means a private set.
	Metrics *metrics.Set
}

// Log is an open event log. It is safe for concurrent use and needs no closing:
// it has no goroutine and ends with its Store.
type Log struct {
	store *state.Store
	keep  int
	log   *slog.Logger
	set   *metrics.Set

	// turn is held by the one Append that stores all that wait.
	turn chan struct{}

	mu      sync.Mutex // guards what follows
	waiting []*pending
	events  []api.Event // what is stored, oldest first
	last    uint64      // the highest id ever given
	subs    map[chan api.Event]struct{}
	dropped *metrics.Counter
}

type pending struct {
	event api.Event
	bytes []byte
	done  chan struct{} // closed when err and event.ID are set
	err   error
}

// Open reads the log from o.Store.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	l := &Log{
		store:   o.Store,
		keep:    o.Keep,
		log:     o.Log.With("component", "events"),
		set:     o.Metrics,
		turn:    make(chan struct{}, 1),
		subs:    make(map[chan api.Event]struct{}),
		dropped: o.Metrics.NewCounter(`binnacle_events_dropped_total`),
	}
	o.Metrics.NewGauge(`binnacle_events_subscribers`, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(len(l.subs))
	})
	if err := l.load(ctx); err != nil {
		return nil, fmt.Errorf("open the event log: %w", err)
	}
	return l, nil
}

// load reads all events. One that does not decode is skipped with a warning: a
// log must not keep a manager from starting.
func (l *Log) load(ctx context.Context) error {
	kvs, err := l.store.List(ctx, prefix)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = l.events[:0]
	for _, kv := range kvs {
		id, err := strconv.ParseUint(strings.TrimPrefix(kv.Key, prefix), 10, 64)
		if err != nil {
			l.log.Warn("skipped a key that is no event", "key", kv.Key)
			continue
		}
		l.last = max(l.last, id)
		var e api.Event
		if err := json.Unmarshal(kv.Value, &e); err != nil {
			l.log.Warn("skipped an event that does not decode", "id", id, "err", err)
			continue
		}
		e.ID = id
		l.events = append(l.events, e)
	}
	return nil
}

func key(id uint64) string { return fmt.Sprintf("%s%020d", prefix, id) }

var kindRE = regexp.MustCompile(`^[a-z][a-z0-9]*(\.[a-z][a-z0-9_]*)+$`)

// Append stores e under a new id, and returns it with ID and Time filled in (a
// Time that is set stays). When it returns nil the event is durable, shown by
// List and on its way to the subscribers.
//
// Appends that come together are stored together, so that a storm of events
// costs a few writes. When ctx ends first, the event may be stored nevertheless.
func (l *Log) Append(ctx context.Context, e api.Event) (api.Event, error) {
	if !kindRE.MatchString(e.Kind) {
		return e, fmt.Errorf("append event: kind %q is not of the form subject.what", e.Kind)
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	e.ID = 0 // stands in the key
	b, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("append event %s: %w", e.Kind, err)
	}
	if len(b) > MaxEventBytes {
		return e, fmt.Errorf("append event %s: it has %d bytes, at most %d fit", e.Kind, len(b), MaxEventBytes)
	}
	p := &pending{event: e, bytes: b, done: make(chan struct{})}
	l.mu.Lock()
	l.waiting = append(l.waiting, p)
	l.mu.Unlock()
	for {
		select {
		case <-p.done:
			return p.result()
		default:
		}
		select {
		case <-p.done:
			return p.result()
		case <-ctx.Done():
			return e, fmt.Errorf("append event %s: %w", e.Kind, ctx.Err())
		case l.turn <- struct{}{}:
			// Others' events are in the batch: one caller's end is not theirs.
			l.storeBatch(context.WithoutCancel(ctx))
			<-l.turn
		}
	}
}

func (p *pending) result() (api.Event, error) {
	if p.err != nil {
		return p.event, fmt.Errorf("append event %s: %w", p.event.Kind, p.err)
	}
	return p.event, nil
}

// storeBatch stores what waits, as far as it fits into one transaction. The
// caller holds the turn, and nobody else stores.
func (l *Log) storeBatch(ctx context.Context) {
	batch := l.takeBatch()
	if len(batch) == 0 {
		return
	}
	err := l.commit(ctx, batch)
	for tries := 0; errors.Is(err, state.ErrConflict) && tries < 5; tries++ {
		// Another manager took these ids: see what it stored, and follow on.
		if err = l.load(ctx); err == nil {
			err = l.commit(ctx, batch)
		}
	}
	for _, p := range batch {
		p.err = err
		close(p.done)
	}
}

func (l *Log) takeBatch() []*pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < min(len(l.waiting), batchMax) {
		size += len(l.waiting[n].bytes) + len(prefix) + 20
		if n > 0 && size > batchBytes {
			break
		}
		n++
	}
	batch := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	return batch
}

func (l *Log) commit(ctx context.Context, batch []*pending) error {
	l.mu.Lock()
	first := l.last + 1
	excess := max(0, len(l.events)+len(batch)-l.keep)
	old := l.events[:min(excess, batchMax, len(l.events))]
	l.mu.Unlock()

	conds := make([]state.Cond, 0, len(batch))
	ops := make([]state.Op, 0, len(batch)+len(old))
	for i, p := range batch {
		p.event.ID = first + uint64(i)
		conds = append(conds, state.IfAbsent(key(p.event.ID)))
		ops = append(ops, state.OpPut(key(p.event.ID), p.bytes))
	}
	for _, e := range old {
		ops = append(ops, state.OpDelete(key(e.ID)))
	}
	if err := l.store.Txn(ctx, conds, ops); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = first + uint64(len(batch)) - 1
	l.events = l.events[len(old):] // append below moves them when needed
	for _, p := range batch {
		l.events = append(l.events, p.event)
		l.set.GetOrCreateCounter(fmt.Sprintf(`binnacle_events_total{kind=%q,group=%q}`, p.event.Kind, p.event.Group)).Inc()
		l.publishLocked(p.event)
	}
	return nil
}

// Filter selects events. Empty fields select all.
type Filter struct {
	// After selects events with a higher id.
	After uint64
	// Limit is the most to give; 0 means all. With After the oldest that match
	// are given, to page on; without it the newest.
	Limit int
	// Kind is a prefix, e.g. "rollout." or "rollout.completed".
	Kind  string
	Group binnacle.Group
	Node  binnacle.NodeID
}

func (f Filter) match(e *api.Event) bool {
	return strings.HasPrefix(e.Kind, f.Kind) &&
		(f.Group == "" || f.Group == e.Group) &&
		(f.Node == "" || f.Node == e.Node)
}

// List returns the events that match, newest last. The caller owns the slice;
// the events' Data are shared and must not be changed.
func (l *Log) List(ctx context.Context, f Filter) ([]api.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	from := sort.Search(len(l.events), func(i int) bool { return l.events[i].ID > f.After })
	out := []api.Event{}
	if f.After > 0 || f.Limit <= 0 {
		for i := from; i < len(l.events) && (f.Limit <= 0 || len(out) < f.Limit); i++ {
			if f.match(&l.events[i]) {
				out = append(out, l.events[i])
			}
		}
		return out, nil
	}
	for i := len(l.events) - 1; i >= from && len(out) < f.Limit; i-- {
		if f.match(&l.events[i]) {
			out = append(out, l.events[i])
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out, nil
}
