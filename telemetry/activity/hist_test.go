package activity

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// fineIndex is the definition of an exponential bucket, for any scale.
func fineIndex(v float64, exp int) int {
	if exp < 0 {
		return fineIndex(v, 0) >> -exp
	}
	frac, e := math.Frexp(v)
	if frac == 0.5 {
		return (e-1)<<exp - 1
	}
	return int(math.Ceil(math.Log2(v)*math.Exp2(float64(exp)))) - 1
}

func TestIndexOfBounds(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		want int
	}{
		{1, -1}, // (2^(-1/8), 1]
		{math.Nextafter(1, 2), 0},
		{2, 7},
		{0.5, -9},
		{0.001, -80}, // 1/1024 is in -81
		{1.0 / 1024, -81},
		{1e-30, minIndex},
		{1e30, maxIndex},
	} {
		if got := indexOf(tc.v); got != tc.want {
			t.Errorf("indexOf(%g): got %d; want %d", tc.v, got, tc.want)
		}
	}
	for i := minIndex; i < maxIndex; i++ {
		mid := math.Sqrt(lowerBound(i) * lowerBound(i+1))
		if got := indexOf(mid); got != i {
			t.Fatalf("indexOf(%g): got %d; want %d", mid, got, i)
		}
		if worst := math.Sqrt(lowerBound(i+1)/lowerBound(i)) - 1; worst > 0.0443 {
			t.Fatalf("bucket %d: the middle is %.4f off; want at most 0.0443", i, worst)
		}
	}
}

func TestQuantilesAreWithinABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(1e-6, 1e3), 1, 300).Draw(t, "values")
		d := newDense()
		for _, v := range values {
			d.add(indexOf(v), 1)
		}
		slices.Sort(values)
		var got [3]float64
		d.quantiles(quantilesShown, got[:])
		for i, q := range quantilesShown {
			// The rank may fall between two values: either bucket is right.
			lo := values[max(0, int(math.Floor(q*float64(len(values))))-1)]
			hi := values[min(len(values)-1, int(math.Ceil(q*float64(len(values)))))]
			if got[i] < lo/1.0906 || got[i] > hi*1.0906 {
				t.Fatalf("quantile %g of %v: got %g; want within a bucket of %g to %g", q, values, got[i], lo, hi)
			}
		}
		if got[0] > got[1] || got[1] > got[2] {
			t.Fatalf("quantiles fall: %v", got)
		}
	})
}

func TestQuantilesOfNothingAndOfNoTime(t *testing.T) {
	var got [3]float64
	d := newDense()
	d.quantiles(quantilesShown, got[:])
	if !math.IsNaN(got[0]) {
		t.Errorf("quantile of nothing: got %g; want NaN", got[0])
	}
	d.zero = 10
	d.quantiles(quantilesShown, got[:])
	if got != [3]float64{} {
		t.Errorf("quantiles of zeros: got %v; want zeros", got)
	}
}

func drawDense(t *rapid.T) *dense {
	d := newDense()
	d.zero = rapid.Uint64Range(0, 5).Draw(t, "zero")
	for range rapid.IntRange(0, 30).Draw(t, "buckets") {
		d.add(rapid.IntRange(minIndex, maxIndex).Draw(t, "index"), rapid.Uint64Range(1, 1<<40).Draw(t, "n"))
	}
	return d
}

func TestPackedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDense(t)
		got := newDense()
		if !got.addPacked(d.pack(nil)) || *got != *d {
			t.Fatalf("unpack(pack(d)): got %d..%d, zero %d; want %d..%d, zero %d", got.lo, got.hi, got.zero, d.lo, d.hi, d.zero)
		}
	})
}

func FuzzPacked(f *testing.F) {
	f.Add([]byte{0, 3, 4})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDense()
		if !d.addPacked(b) {
			return
		}
		again := newDense()
		if !again.addPacked(d.pack(nil)) || again.count() != d.count() {
			t.Fatalf("round trip of %x: got count %d; want %d", b, again.count(), d.count())
		}
	})
}

func TestPartsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDense(t)
		by := deal{n: rapid.Uint64Range(1, 64).Draw(t, "units"), first: rapid.Uint64Range(0, 100).Draw(t, "first")}
		all := newDense()
		for from := uint64(0); from < by.n; {
			to := from + rapid.Uint64Range(1, by.n-from).Draw(t, "width")
			p := newDense()
			d.part(p, by, from, to)
			if got, fair := p.count(), d.count()/by.n*(to-from); got < fair || got > fair+to-from {
				t.Fatalf("units %d to %d of %d of %d: got %d; want %d to %d", from, to, by.n, d.count(), got, fair, fair+to-from)
			}
			all.addIncrease(&increase{zero: p.zero, buckets: p.list(nil)})
			from = to
		}
		if all.n != d.n || all.zero != d.zero {
			t.Fatalf("parts do not add up to the whole")
		}
	})
}

func TestNativeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c cumulative
		d := drawDense(t)
		inc := increase{count: d.count(), zero: d.zero, sum: 2.5}
		for p := d.lo; p <= d.hi; p++ {
			if d.n[p] > 0 {
				inc.buckets = append(inc.buckets, bucket{p + minIndex, d.n[p]})
			}
		}
		c.add(&inc)
		h := c.native(&c)
		if err := h.Validate(); err != nil {
			t.Fatalf("native(): %v", err)
		}
		got, ok := fromNative(h)
		if !ok || got.count != c.count || got.zero != c.zero || !got.covers(&c) || !c.covers(got) {
			t.Fatalf("fromNative(native(c)): got %+v, %v; want %+v", got, ok, c)
		}
		if since := c.since(got); since.count != 0 {
			t.Fatalf("since itself: got %d; want 0", since.count)
		}
		if since := c.since(&cumulative{}); since.count != c.count {
			t.Fatalf("since nothing: got %d; want %d", since.count, c.count)
		}
	})
}

func TestNativeBucketsAreWherePrometheusExpectsThem(t *testing.T) {
	var c cumulative
	c.add(&increase{count: 1, sum: 0.1, buckets: []bucket{{indexOf(0.1), 1}}})
	filled := 0
	for it := c.native(&c).PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Count > 0 {
			if filled++; !(b.Lower < 0.1 && 0.1 <= b.Upper) || b.Count != 1 {
				t.Errorf("bucket of 0.1: got %v", b)
			}
		}
	}
	if filled != 1 {
		t.Errorf("%d buckets are filled; want one", filled)
	}
}
