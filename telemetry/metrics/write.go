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
