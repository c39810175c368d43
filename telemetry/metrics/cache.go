package metrics

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/otlptranslator"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// cache takes a data point from its OTLP identity to its Series without
// building a label. It has three levels, as a payload has:
//
//	resource  by who sent it and the bytes of its attributes
//	family    by metric name, unit and kind, within the resource
//	point     by the bytes of its attributes, within the family
//
// so a known resource costs one lookup. A known family or point costs none:
// senders repeat themselves in order, so that each entry knows the one that came
// after it the last time, and a comparison of bytes shows that it is the one
// again. Keys are compared whole: two identities never meet by a hash. The key of
// a point is its attributes as they were encoded; another order or encoding is
// another key to the same Series (see table), and so is another scope, because it
// is in no label.
//
// The top level is sharded; below it a resource is its own shard. Its lock is
// held while one batch of it is appended, which also keeps the points of one
// sender in order.
//
// It is bounded: a point exists for a series that some owner pays for, at most
// pointsPerSeries of them, and goes when the series has left memory (sweep).
// What finds no room is worked out anew each time.
type cache struct {
	seed      maphash.Seed
	shards    [64]cacheShard
	resources atomic.Int64
	points    atomic.Int64
}

type cacheShard struct {
	mu sync.RWMutex
	m  map[string]*resource
}

// pointsPerSeries is how many cache entries an owner may hold for each series
// it may have: room for a few orders of attributes.
const pointsPerSeries = 4

// A resource is one sender: a process of a node, mostly.
type resource struct {
	owner *owner
	base  []label // job, instance, group, process: on every series
	info  []label // the labels of target_info; nil if there is nothing to tell

	mu       sync.Mutex // guards the rest, while a batch is appended
	families familySet
	first    *family // the first of the newest batch
	points   int     // of all families
	infoTo   *Series
	infoAt   int64 // time of the last target_info sample, Unix ms
	used     time.Time
	gone     bool // swept out of the cache; look again
}

// familyKey is what makes a metric another family of series. Its strings are
// the payload's, copied when the family is made.
type familyKey struct {
	scope, name, unit string
	kind              kind
}

// kind is a metric's type with what changes its meaning.
type kind uint8

const (
	kindUnknown kind = iota
	kindGauge
	kindCounter      // monotonic cumulative sum
	kindCounterDelta // monotonic delta sum
	kindUpDown
	kindUpDownDelta
	kindHistogram
	kindHistogramDelta
	kindExponential
	kindExponentialDelta
	kindSummary
)

// delta says whether the points of k hold increases rather than totals.
func (k kind) delta() bool {
	return k == kindCounterDelta || k == kindUpDownDelta || k == kindHistogramDelta || k == kindExponentialDelta
}

// kindOf returns the kind of m, and false for a type or temporality that is
// not in the data model.
func kindOf(m *wire.Metric) (kind, bool) {
	pick := func(cumulative, delta kind) (kind, bool) {
		switch m.Temporality {
		case wire.Cumulative:
			return cumulative, true
		case wire.Delta:
			return delta, true
		}
		return kindUnknown, false
	}
	switch m.Type {
	case wire.Gauge:
		return kindGauge, true
	case wire.Sum:
		if m.Monotonic {
			return pick(kindCounter, kindCounterDelta)
		}
		return pick(kindUpDown, kindUpDownDelta)
	case wire.Histogram:
		return pick(kindHistogram, kindHistogramDelta)
	case wire.Exponential:
		return pick(kindExponential, kindExponentialDelta)
	case wire.Summary:
		return kindSummary, true
	}
	return kindUnknown, false
}

// named is what a metric is called, shared by all resources that have it: a
// fleet has few metrics and many nodes.
type named struct {
	key  familyKey
	name string // Prometheus name, with unit and type suffixes
	unit string // in Prometheus's words
}

// names holds what is named, by its key. Safe for concurrent use.
type names struct {
	mu sync.RWMutex
	m  map[familyKey]*named
}

// maxNamed bounds names; those beyond it are made for each resource.
const maxNamed = 20_000

// get returns what key names. It keeps nothing of key's memory.
func (t *names) get(key familyKey) (*named, error) {
	t.mu.RLock()
	n := t.m[key]
	t.mu.RUnlock()
	if n != nil {
		return n, nil
	}
	key.scope, key.name, key.unit = strings.Clone(key.scope), strings.Clone(key.name), strings.Clone(key.unit)
	name, err := metricName(key)
	if err != nil {
		return nil, err
	}
	if len(name) > maxNameBytes {
		return nil, fmt.Errorf("metric name is longer than %d bytes", maxNameBytes)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.m[key]; n != nil {
		return n, nil
	}
	n = &named{key, name, (&otlptranslator.UnitNamer{}).Build(key.unit)}
	if t.m == nil {
		t.m = map[familyKey]*named{}
	}
	if len(t.m) < maxNamed {
		t.m[key] = n
	}
	return n, nil
}

// A family is one metric of one resource.
type family struct {
	*named
	points pointSet
	first  *point  // the first of the newest batch
	after  *family // what came after this one in a batch

	// bounds are those of the newest histogram point: points of one metric
	// mostly share them.
	bounds *bounds

	// passing families found no room in their resource: their points are not
	// cached.
	passing bool

	// at is the time of the newest point, before the newest of an older time
	// (Unix ms). A series that first shows at `at` was zero at `before`.
	at, before int64
}

// A point is one attribute set of a family. What it holds beside the series
// spares work on the next sample of the same shape.
type point struct {
	next *point // of the family's pointSet, as are hash, key and in
	hash uint64
	key  string
	in   bool

	after *point // what came after this one in a batch

	series   *Series
	shape    *shape // of histograms and summaries; nil for numbers
	exemplar uint64 // time of the newest, Unix ns

	// own is the room for the series, if this point is the first to need it:
	// nearly every series has one point, and both live equally long.
	own Series
}

// A shape is what a point of several values looked like the last time.
type shape struct {
	layout    *layout         // of native histograms whose buckets vary
	held      *smallHistogram // the newest sample, see native
	newest    int64           // its time, Unix ms
	cell      wire.Cell       // of whoever reads the same points
	bounds    *bounds         // of explicit histograms
	quantiles []float64       // of summaries
	classic   []*Series       // classic series: see classicSeries, summarySeries
}

// alive says whether all the point's series are still those of the table.
func (p *point) alive() bool {
	if p.series != nil && p.series.dead.Load() {
		return false
	}
	if p.shape == nil {
		return true
	}
	for _, s := range p.shape.classic {
		if s.dead.Load() {
			return false
		}
	}
	return true
}

func newCache() *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].m = map[string]*resource{}
	}
	return c
}

func (c *cache) hash(key []byte) uint64 { return maphash.Bytes(c.seed, key) }

func (c *cache) shard(key []byte) *cacheShard {
	return &c.shards[c.hash(key)%uint64(len(c.shards))]
}

// get returns the resource of key, or nil.
func (c *cache) get(key []byte) *resource {
	sh := c.shard(key)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.m[string(key)]
}

// put adds r unless another writer was faster, and returns the one that holds.
func (c *cache) put(key []byte, r *resource) *resource {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if old := sh.m[string(key)]; old != nil {
		return old
	}
	sh.m[string(key)] = r
	c.resources.Add(1)
	return r
}

// forget drops r, which was swept.
func (c *cache) forget(key []byte, r *resource) {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.m[string(key)] == r {
		delete(sh.m, string(key))
		c.resources.Add(-1)
	}
}

// sweep drops points whose series is gone, and resources that are empty or
// were not used since the given time.
func (c *cache) sweep(idleSince time.Time) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.RLock()
		all := make(map[string]*resource, len(sh.m))
		for k, r := range sh.m {
			all[k] = r
		}
		sh.mu.RUnlock()
		for k, r := range all {
			if !c.sweepResource(r, idleSince) {
				continue
			}
			c.forget([]byte(k), r)
		}
	}
}

// sweepResource reports whether r is to go, and marks it so.
func (c *cache) sweepResource(r *resource, idleSince time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	dropped := 0
	idle := r.used.Before(idleSince)
	r.families.drop(func(f *family) bool {
		dropped += f.points.drop(func(p *point) bool { return idle || !p.alive() })
		return f.points.n == 0
	})
	if dropped > 0 {
		r.forgetOrder()
	}
	c.points.Add(-int64(dropped))
	r.owner.points.Add(-int64(dropped))
	r.points -= dropped
	r.gone = r.points == 0
	return r.gone
}

// forgetOrder drops what is known of the order in which things come, which may
// lead to what was dropped.
func (r *resource) forgetOrder() {
	r.first = nil
	for _, f := range r.families.list {
		f.first, f.after = nil, nil
		f.points.each(func(p *point) { p.after = nil })
	}
}

const (
	// sweepInterval is often enough to give budgets back soon after the TSDB
	// dropped series, which it does every two hours.
	sweepInterval = 5 * time.Minute
	// idleAfter is beyond the time that a series without samples stays in the
	// TSDB's memory.
	idleAfter = 4 * time.Hour
)

// sweep forgets what no sender uses any more.
func (s *Store) sweep(now time.Time) {
	s.cache.sweep(now.Add(-idleAfter))
	s.table.dropUnborn()
	s.table.dropOwners()
	s.scraped.sweep()
	s.sweepMeta()
}

// appendResourceKey appends the identity of a sender: what the connection
// proved, then what the payload says, so that no payload alone can hit another
// sender's entry. Each attribute is length-prefixed or of fixed length after its
// type, so that no two lists give the same bytes.
func appendResourceKey(b []byte, o binnacle.Origin, attrs wire.Attrs) []byte {
	if o.Managed {
		b = append(b, 1)
		b = appendBytes(b, string(o.Node))
		b = appendBytes(b, string(o.Group))
	} else {
		b = append(b, 0)
	}
	for i := range attrs {
		v := &attrs[i].Value
		b = appendBytes(b, attrs[i].Key)
		b = append(b, byte(v.Type))
		switch v.Type {
		case wire.Empty:
		case wire.Int, wire.Bool:
			b = binary.LittleEndian.AppendUint64(b, uint64(v.Int()))
		case wire.Double:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Double()))
		default: // strings; others are rare enough for their text
			b = appendBytes(b, v.View())
		}
	}
	return b
}

func appendBytes(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
