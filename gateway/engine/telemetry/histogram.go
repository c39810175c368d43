package telemetry

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"
)

// The histograms of requests are ours and not the SDK's: a request records two
// of them, and both together take a tenth of what the SDK's take. Collection
// and export are the SDK's, see Produce.

const (
	// maxScale is the finest scale that Prometheus's native histograms keep,
	// where each series starts; it gets coarser as values spread over more than
	// maxBuckets.
	maxScale   = 8
	maxBuckets = 160
	// minScale holds all positive float64 in two buckets.
	minScale = -10
	// maxExemplars is how many kept traces one export of a series names.
	maxExemplars = 8
)

// instrument is a histogram of durations in seconds with all its series. It is
// safe for concurrent use.
type instrument struct {
	name, description string
	side              string // of metricAttributeSets
	log               *slog.Logger

	mu     sync.Mutex // guards what follows
	series map[attribute.Distinct]*series
	list   []*series
	warned bool
}

func newInstrument(name, description, side string, log *slog.Logger) *instrument {
	return &instrument{name: name, description: description, side: side, log: log, series: map[attribute.Distinct]*series{}}
}

// overflow is the attribute set of all series beyond the limit.
//
// Source: OpenTelemetry specification, metrics SDK, "Overflow attribute".
var overflow = attribute.NewSet(attribute.Bool("otel.metric.overflow", true))

// of returns the series with the attributes, a new one or the one of an earlier
// generation. Beyond the limit it is one for all.
func (in *instrument) of(set attribute.Set) *series {
	if in == nil {
		return newSeries(set)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if s, ok := in.series[set.Equivalent()]; ok {
		return s
	}
	switch n := len(in.series); {
	case n >= maxAttributeSets:
		set = overflow
		if s, ok := in.series[set.Equivalent()]; ok {
			return s
		}
		in.log.Error("there are too many different routes, backends and outcomes to count each; further ones are counted together, until the worker restarts",
			"side", in.side, "limit", maxAttributeSets)
	case n >= maxAttributeSets*8/10 && !in.warned:
		in.warned = true
		in.log.Warn("the limit of different routes, backends and outcomes is near; a restart of the worker forgets those of former configurations",
			"side", in.side, "sets", n, "limit", maxAttributeSets)
	}
	s := newSeries(set)
	in.series[set.Equivalent()] = s
	in.list = append(in.list, s)
	return s
}

func (in *instrument) count() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return int64(len(in.series))
}

// metric returns what the instrument holds at the moment now. Exemplars are
// handed out once.
func (in *instrument) metric(now time.Time) metricdata.Metrics {
	in.mu.Lock()
	list := in.list[:len(in.list):len(in.list)]
	in.mu.Unlock()
	points := make([]metricdata.ExponentialHistogramDataPoint[float64], 0, len(list))
	for _, s := range list {
		if p, ok := s.point(now); ok {
			points = append(points, p)
		}
	}
	return metricdata.Metrics{Name: in.name, Description: in.description, Unit: "s",
		Data: metricdata.ExponentialHistogram[float64]{DataPoints: points, Temporality: metricdata.CumulativeTemporality}}
}

// series is one exponential histogram: the durations of one attribute set since
// the process began.
type series struct {
	attrs attribute.Set
	start time.Time

	mu          sync.Mutex // guards what follows
	count, zero uint64
	sum         float64
	scale       int
	base        int      // index of counts[0]
	counts      []uint64 // at most maxBuckets
	exemplars   []metricdata.Exemplar[float64]
	offered     uint64 // kept traces since the last export
}

func newSeries(set attribute.Set) *series {
	return &series{attrs: set, start: time.Now(), scale: maxScale}
}

// record adds a duration in seconds, not negative. A kept trace becomes an
// exemplar. It allocates nothing, but for new buckets and exemplars.
func (s *series) record(v float64, sc trace.SpanContext) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.sum += v
	if v > 0 {
		s.counts[s.room(finestIndex(v))]++
	} else {
		s.zero++
	}
	if sc.IsSampled() {
		s.exemplify(v, sc)
	}
}

// room returns the place of the finest index i in counts, having grown or
// coarsened them.
func (s *series) room(i int) int {
	at := i >> (maxScale - s.scale)
	if len(s.counts) == 0 {
		s.base, s.counts = at, make([]uint64, 1, 16)
		return 0
	}
	lo, hi := min(at, s.base), max(at, s.base+len(s.counts)-1)
	for hi-lo >= maxBuckets && s.scale > minScale {
		s.coarsen()
		at = i >> (maxScale - s.scale)
		lo, hi = min(at, s.base), max(at, s.base+len(s.counts)-1)
	}
	if grow := hi - lo + 1 - len(s.counts); grow > 0 {
		old := len(s.counts)
		s.counts = append(s.counts, make([]uint64, grow)...)
		if shift := s.base - lo; shift > 0 {
			copy(s.counts[shift:], s.counts[:old])
			clear(s.counts[:shift])
			s.base = lo
		}
	}
	return at - s.base
}

// coarsen halves the resolution: two neighbors become one bucket.
func (s *series) coarsen() {
	base := s.base >> 1
	n := 0
	for j, c := range s.counts {
		k := (s.base+j)>>1 - base
		if k == n {
			n++
			s.counts[k] = c // k <= j: it was read before
		} else {
			s.counts[k] += c
		}
	}
	s.base, s.counts, s.scale = base, s.counts[:n], s.scale-1
}

// exemplify keeps a uniform sample of the kept traces between two exports.
//
// Source: Vitter, "Random sampling with a reservoir", algorithm R.
func (s *series) exemplify(v float64, sc trace.SpanContext) {
	s.offered++
	i := len(s.exemplars)
	if i == maxExemplars {
		if i = int(rand.Uint64N(s.offered)); i >= maxExemplars {
			return
		}
	} else {
		s.exemplars = append(s.exemplars, metricdata.Exemplar[float64]{})
	}
	id, span := sc.TraceID(), sc.SpanID()
	s.exemplars[i] = metricdata.Exemplar[float64]{Time: time.Now(), Value: v, TraceID: id[:], SpanID: span[:]}
}

// point returns the series as an OTLP point; false when nothing was recorded.
func (s *series) point(now time.Time) (metricdata.ExponentialHistogramDataPoint[float64], bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == 0 {
		return metricdata.ExponentialHistogramDataPoint[float64]{}, false
	}
	p := metricdata.ExponentialHistogramDataPoint[float64]{
		Attributes: s.attrs, StartTime: s.start, Time: now,
		Count: s.count, Sum: s.sum, ZeroCount: s.zero, Scale: int32(s.scale),
		PositiveBucket: metricdata.ExponentialBucket{Offset: int32(s.base), Counts: append([]uint64(nil), s.counts...)},
		Exemplars:      s.exemplars,
	}
	s.exemplars, s.offered = nil, 0
	return p, true
}

// bounds are the bucket bounds of one octave at maxScale: bounds[k] = 2^(k/256).
// firstBound tells by the ten highest bits of a mantissa the first bound that
// can be the upper one of its bucket.
var bounds, firstBound = func() (b [1<<maxScale + 1]float64, first [1 << 10]uint16) {
	for k := range b {
		b[k] = math.Exp2(float64(k) / (1 << maxScale))
	}
	k := 0
	for i := range first {
		for b[k] < 1+float64(i)/(1<<10) {
			k++
		}
		first[i] = uint16(k)
	}
	return b, first
}()

// finestIndex returns the OTLP index of v > 0 at maxScale: bucket i holds
// (2^(i/256), 2^((i+1)/256)]. At a coarser scale it is the same index shifted.
//
// Source: OpenTelemetry data model, "Exponential buckets".
func finestIndex(v float64) int {
	frac, exp := math.Frexp(v) // v = frac * 2^exp, frac from 0.5
	m := 2 * frac
	k := int(firstBound[math.Float64bits(m)>>42&(1<<10-1)])
	for bounds[k] < m {
		k++
	}
	return (exp-1)<<maxScale + k - 1
}
