package telemetry

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// TestFinestIndex: each value lies in its bucket, bounds in the lower one.
func TestFinestIndex(t *testing.T) {
	f := func(v float64, want int) {
		t.Helper()
		if got := finestIndex(v); got != want {
			t.Errorf("finestIndex(%v): got %d; want %d", v, got, want)
		}
	}
	f(1, -1)
	f(2, 255)
	f(math.Nextafter(1, 2), 0)
	f(math.Nextafter(2, 1), 255)
	f(4, 511)
	f(0.5, -257)
	f(bounds[7], 6)
	f(math.Nextafter(bounds[7], 2), 7)
	f(math.SmallestNonzeroFloat64, -1074<<maxScale-1)
	f(math.MaxFloat64, 1024<<maxScale-1)
	for range 100_000 {
		v := math.Exp((rand.Float64() - 0.5) * 40)
		i := float64(finestIndex(v))
		// The bounds of math.Exp2 are good to one unit in the last place.
		if lo, hi := math.Exp2(i/256), math.Exp2((i+1)/256); v < lo*(1-1e-15) || v > hi*(1+1e-15) {
			t.Fatalf("finestIndex(%v) = %v: not in (%v, %v]", v, i, lo, hi)
		}
	}
}

// TestSeriesKeepsAll records what spreads further and further: counts and sum
// stay exact, and each value is in the bucket of its scale.
func TestSeriesKeepsAll(t *testing.T) {
	for _, spread := range []float64{0, 0.1, 1, 10, 100, 1000} {
		s := newSeries(attribute.Set{})
		var values []float64
		sum := 0.0
		for i := range 2000 {
			v := math.Exp2((rand.Float64() - 0.5) * spread * float64(i) / 2000)
			if i%100 == 0 {
				v = 0
			}
			values = append(values, v)
			sum += v
			s.record(v, trace.SpanContext{})
		}
		p, ok := s.point(time.Now())
		if !ok || p.Count != 2000 || p.Sum != sum || p.ZeroCount != 20 {
			t.Fatalf("spread %v: count %d, sum %v, zero %d; want 2000, %v, 20", spread, p.Count, p.Sum, p.ZeroCount, sum)
		}
		if n := len(p.PositiveBucket.Counts); n > maxBuckets {
			t.Errorf("spread %v: %d buckets; want at most %d", spread, n, maxBuckets)
		}
		want := map[int]uint64{}
		for _, v := range values {
			if v > 0 {
				want[finestIndex(v)>>(maxScale-int(p.Scale))]++
			}
		}
		for j, n := range p.PositiveBucket.Counts {
			if i := int(p.PositiveBucket.Offset) + j; want[i] != n {
				t.Fatalf("spread %v, scale %d: bucket %d has %d; want %d", spread, p.Scale, i, n, want[i])
			} else {
				delete(want, i)
			}
		}
		if len(want) > 0 {
			t.Errorf("spread %v: buckets missing: %v", spread, want)
		}
	}
}

// TestExemplarsAreASample: few, of all, and handed out once.
func TestExemplarsAreASample(t *testing.T) {
	s := newSeries(attribute.Set{})
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	late := 0
	for range 200 {
		for i := range 100 {
			s.record(float64(i+1), sc)
		}
		p, _ := s.point(time.Now())
		if len(p.Exemplars) != maxExemplars {
			t.Fatalf("%d exemplars; want %d", len(p.Exemplars), maxExemplars)
		}
		for _, e := range p.Exemplars {
			if e.Value > 50 {
				late++
			}
		}
	}
	if all := 200 * maxExemplars; late < all*4/10 || late > all*6/10 {
		t.Errorf("%d of %d exemplars are of the second half; want about half", late, all)
	}
	s.record(1, trace.SpanContext{})
	if p, _ := s.point(time.Now()); len(p.Exemplars) != 0 {
		t.Errorf("%d exemplars without a kept trace", len(p.Exemplars))
	}
}

func TestInstrumentIsBounded(t *testing.T) {
	in := newInstrument("x", "", "server", discard)
	for i := range maxAttributeSets + 50 {
		in.of(attribute.NewSet(attribute.Int("i", i))).record(1, trace.SpanContext{})
	}
	if n := in.count(); n != maxAttributeSets+1 {
		t.Errorf("%d sets; want %d and one for the rest", n, maxAttributeSets)
	}
	rest := in.of(attribute.NewSet(attribute.Int("i", -1)))
	if p, _ := rest.point(time.Now()); p.Count != 50 || !p.Attributes.HasValue("otel.metric.overflow") {
		t.Errorf("the rest has %d measurements and attributes %v; want 50", p.Count, p.Attributes)
	}
	if in.of(attribute.NewSet(attribute.Int("i", 7))) == rest {
		t.Error("a known set is counted with the rest")
	}
}
