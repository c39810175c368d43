package metrics

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// WriteMetrics stores a batch of OTLP metrics. Its resources must be
// attributed: service.instance.id and the binnacle.* attributes are believed.
//
// Data points that cannot be stored (too old, over a limit, malformed) are
// counted in rejected and told in message, for a partial success; the rest is
// stored together, readable and in the log when WriteMetrics returns. An error
// means that nothing is stored; an *Unavailable among them may be tried again.
//
// WriteMetrics does not change md and keeps nothing of it. It is safe for
// concurrent use; batches of one resource wait for each other.
func (s *Store) WriteMetrics(ctx context.Context, o binnacle.Origin, md *wire.Metrics) (rejected int, message string, err error) {
	if err := ctx.Err(); err != nil {
		return 0, "", err
	}
	now := time.Now()
	if err := s.space.check(now); err != nil {
		return 0, "", err
	}
	w := writers.Get().(*writer)
	defer w.release()
	w.begin(s, o, now)
	// A batch of one resource, as nearly all are, stays locked until it is stored.
	w.buckets.recycler.begin(len(md.Resources) == 1, now, s.knownSince)
	for i := range md.Resources {
		w.unlockResource()
		w.resource(&md.Resources[i])
	}
	if len(md.Resources) > 1 {
		w.unlockResource()
	}
	err = w.commit()
	w.buckets.recycler.settle(err == nil)
	if err != nil {
		return 0, "", err
	}
	if rejected = w.rejected.total(); rejected > 0 {
		message = w.rejected.message(s.opts)
	}
	return rejected, message, nil
}

// writer is the state and scratch memory of one WriteMetrics.
type writer struct {
	s      *Store
	origin binnacle.Origin
	app    storage.AppenderV2
	now    time.Time
	limit  int64 // newest allowed time, Unix ms

	rejected      rejections
	points        int
	hits, misses  int
	added         int // points to the cache
	uncached      int
	exemplarCount int
	exemplarsLost int

	resKey   []byte // of the resource being written
	locked   *resource
	family0  *family // the family before, in the resource
	point0   *point  // the point before, in the family
	labels   labelBuilder
	buckets  bucketEncoder
	expo     expo
	explicit explicit
	exs      []exemplar.Exemplar
	room     *pointRoom
}

var writers = sync.Pool{New: func() any { return &writer{room: new(pointRoom)} }}

func (w *writer) begin(s *Store, o binnacle.Origin, now time.Time) {
	w.s, w.origin = s, o
	w.app = s.db.AppenderV2(context.Background())
	w.now = now
	w.limit = w.now.Add(s.opts.MaxAhead).UnixMilli()
}

// release gives the scratch memory back, and ends an appender that a panic
// would leave open: the TSDB waits for all of them.
func (w *writer) release() {
	w.unlockResource()
	w.s.cache.points.Add(int64(w.added))
	if w.app != nil {
		_ = w.app.Rollback()
	}
	clear(w.exs)
	w.buckets.recycler.settle(false)
	*w = writer{resKey: w.resKey[:0], labels: w.labels, buckets: w.buckets, expo: w.expo, explicit: explicit{counts: w.explicit.counts}, exs: w.exs[:0], room: w.room}
	w.labels.truncated = 0
	clear(w.labels.list)
	writers.Put(w)
}

// commit stores the batch and counts what came of it.
func (w *writer) commit() error {
	start := time.Now()
	err := w.app.Commit()
	w.app = nil
	if err != nil {
		return w.s.commitFailed(err)
	}
	m := w.s.self
	m.commitSeconds.UpdateDuration(start)
	m.points.Add(w.points - w.rejected.total())
	m.hits.Add(w.hits)
	m.misses.Add(w.misses)
	m.uncached.Add(w.uncached)
	m.exemplars.Add(w.exemplarCount - w.exemplarsLost)
	m.exemplarsLost.Add(w.exemplarsLost)
	m.truncated.Add(w.labels.truncated)
	for why, n := range w.rejected.n {
		m.rejected[why].Add(n)
	}
	return nil
}

// resource appends all of one resource and leaves it locked.
func (w *writer) resource(rm *wire.Resource) {
	res := w.lockResource(rm.Attrs)
	w.locked = res
	res.used = w.now

	newest := int64(math.MinInt64)
	w.family0 = nil
	for i := range rm.Metrics {
		newest = max(newest, w.metric(res, &rm.Metrics[i]))
	}
	if newest != math.MinInt64 {
		w.targetInfo(res, newest)
	}
}

// lockResource returns the resource of attrs, locked, making it at need.
func (w *writer) lockResource(attrs wire.Attrs) *resource {
	w.resKey = appendResourceKey(w.resKey[:0], w.origin, attrs)
	for {
		res := w.s.cache.get(w.resKey)
		if res == nil {
			res = w.s.cache.put(w.resKey, w.newResource(attrs))
		}
		res.mu.Lock()
		if !res.gone {
			return res
		}
		res.mu.Unlock() // left the cache between get and Lock
		w.s.cache.forget(w.resKey, res)
	}
}

// unlockResource unlocks the resource that is locked, if one is. It drops it from
// the cache again if none of its points could be stored: refused senders cost no
// memory.
func (w *writer) unlockResource() {
	res := w.locked
	if res == nil {
		return
	}
	w.locked = nil
	if res.points == 0 {
		res.gone = true
		w.s.cache.forget(w.resKey, res)
	}
	res.mu.Unlock()
}

func (w *writer) newResource(attrs wire.Attrs) *resource {
	base, info := resourceLabels(attrs)
	for i := range base {
		base[i].value = w.labels.clean(base[i].value)
	}
	return &resource{
		owner: w.s.table.ownerOf(w.origin.Managed, get(base, binnacle.LabelInstance)),
		base:  base,
		info:  info,
		used:  w.now,
	}
}

// metric appends the points of one metric and returns the newest time stored.
func (w *writer) metric(res *resource, m *wire.Metric) int64 {
	n := len(m.Points)
	if n == 0 {
		return math.MinInt64
	}
	w.points += n
	k, ok := kindOf(m)
	if !ok {
		w.rejected.add(n, m.Name, errors.New("metric has no aggregation temporality: want cumulative or delta"))
		return math.MinInt64
	}
	fam, err := w.family(res, familyKey{m.Scope, m.Name, m.Unit, k}, m.Description)
	if err != nil {
		w.rejected.add(n, m.Name, err)
		return math.MinInt64
	}
	before := fam.at
	w.point0 = nil
	store := (*writer).number
	switch m.Type {
	case wire.Histogram:
		store = (*writer).explicitPoint
	case wire.Exponential:
		store = (*writer).exponential
	case wire.Summary:
		store = (*writer).summary
	}
	for i := range m.Points {
		if err := store(w, res, fam, &m.Points[i]); err != nil {
			w.rejected.add(1, fam.name, err)
		}
	}
	if fam.at == before && before == 0 {
		return math.MinInt64
	}
	return fam.at
}

// family returns the family of key, making it at need.
func (w *writer) family(res *resource, key familyKey, help string) (*family, error) {
	likely := res.first
	if w.family0 != nil {
		likely = w.family0.after
	}
	if likely != nil && likely.key == key {
		w.family0 = likely
		return likely, nil
	}
	if f := res.families.get(key); f != nil {
		w.follows(res, f)
		return f, nil
	}
	n, err := w.s.names.get(key)
	if err != nil {
		return nil, err
	}
	f := &family{named: n}
	if len(res.families.list) < maxFamilies {
		res.families.add(f)
		w.follows(res, f)
	} else {
		f.passing = true
	}
	w.s.meta.add(n, help)
	return f, nil
}

// follows notes that f came after the family before.
func (w *writer) follows(res *resource, f *family) {
	if w.family0 == nil {
		res.first = f
	} else {
		w.family0.after = f
	}
	w.family0 = f
}

// maxFamilies bounds the metrics of one resource that are cached.
const maxFamilies = 10_000

// point returns the cached point of dp, making it at need by resolve, which
// fills in its series. shaped ones have a shape. It is valid until the next call at
// least.
func (w *writer) point(res *resource, fam *family, dp *wire.Point, shaped bool, resolve func(*point) error) (*point, error) {
	p := fam.first
	if w.point0 != nil {
		p = w.point0.after
	}
	var h uint64
	if p == nil || p.key != string(dp.Key) {
		h = w.s.cache.hash(dp.Key)
		p = fam.points.get(h, dp.Key)
	}
	if p != nil {
		w.comes(fam, p)
		if p.alive() {
			w.hits++
			if p.shape != nil {
				dp.Cell = &p.shape.cell
			}
			return p, nil
		}
	}
	w.misses++
	fresh := w.room.next(shaped)
	if err := resolve(fresh); err != nil {
		return nil, err
	}
	w.room.taken(fresh)
	switch {
	case p != nil: // its series left memory: follow the new one
		p.series, p.shape, p.exemplar = fresh.series, fresh.shape, fresh.exemplar
		return p, nil
	case fam.passing:
		w.uncached++
	case res.owner.points.Load() < pointsPerSeries*res.owner.max:
		fresh.hash, fresh.key = h, w.room.key(dp.Key)
		fam.points.add(fresh)
		w.comes(fam, fresh)
		res.points++
		w.added++
		res.owner.points.Add(1)
		if fresh.shape != nil {
			dp.Cell = &fresh.shape.cell
		}
	default:
		w.uncached++
	}
	return fresh, nil
}

// comes notes that p came after the point before.
func (w *writer) comes(fam *family, p *point) {
	if w.point0 == nil {
		fam.first = p
	} else {
		w.point0.after = p
	}
	w.point0 = p
}

// one resolves a point that has a single series.
func (w *writer) one(res *resource, fam *family, dp *wire.Point, shaped bool) (*point, error) {
	return w.point(res, fam, dp, shaped, func(p *point) (err error) {
		p.series, err = w.series(&p.own, res, fam, fam.name, dp.Key)
		return err
	})
}

// series interns the series of a point under the given name. It lies in room if
// it is new.
func (w *writer) series(room *Series, res *resource, fam *family, name string, attrs wire.PointAttrs, extra ...label) (*Series, error) {
	lbls, err := w.labels.series(name, res.base, attrs, fam.key.kind, extra...)
	if err != nil {
		return nil, err
	}
	return w.s.table.intern(room, lbls, res.owner)
}

// when returns a point's time in Unix milliseconds, or why it cannot be.
func (w *writer) when(ts uint64) (int64, error) {
	t := millis(ts)
	switch {
	case ts == 0:
		return 0, errNoTime
	case t > w.limit:
		return 0, errAhead
	}
	return t, nil
}

// stamp notes the time of a stored point.
func (f *family) stamp(t int64) {
	if t > f.at {
		f.before, f.at = f.at, t
	}
}

// zeroAt returns when a cumulative stream that starts at start and is stored at
// t was last known to be zero, and false if that needs no sample. That is its
// start or, for a new series of a metric that was exported before, the export
// before: it had no such series yet.
func (f *family) zeroAt(s *Series, start uint64, t int64) (int64, bool) {
	st := millis(start)
	if st == 0 || st >= t {
		return 0, false
	}
	old := s.start.Load()
	if old == st {
		return 0, false
	}
	s.start.Store(st)
	if old != 0 {
		return st, t-st < maxZeroAge // a restart
	}
	before := f.at
	if before >= t {
		before = f.before
	}
	if before > st && before < t {
		return before, true
	}
	return st, t-st < maxZeroAge
}

// maxZeroAge is how far back (ms) a zero sample may lie: half of what the TSDB
// keeps open in memory. Older ones it would take for late samples, or, in an
// empty store, for the beginning of all its blocks.
const maxZeroAge = 3_600_000

// stored handles the outcome of an append: exemplars that were not taken are
// no loss of the sample.
func (w *writer) stored(err error) error {
	if err == nil {
		return nil // before errors.As, which allocates
	}
	var partial *storage.AppendPartialError
	if errors.As(err, &partial) {
		w.exemplarsLost += len(partial.ExemplarErrors)
		return nil
	}
	return err
}

var staleNaN = math.Float64frombits(value.StaleNaN)

// staleHistogram returns the sample that ends a histogram series: the sender
// has no value for this time.
func staleHistogram() *histogram.Histogram { return &histogram.Histogram{Sum: staleNaN} }
