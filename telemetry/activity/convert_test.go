package activity

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNewBoundsRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		upper []float64
		ok    bool
	}{
		{"none", nil, true},
		{"krakend's", fakeBounds, true},
		{"a zero bound", []float64{0, 5, 10}, true},
		{"a negative bound", []float64{-1, 5}, true},
		{"twice the same", []float64{1, 1}, false},
		{"falling", []float64{2, 1}, false},
		{"NaN", []float64{math.NaN()}, false},
		{"infinite", []float64{1, math.Inf(1)}, false},
		{"too many", make([]float64, maxBounds+1), false},
	} {
		if _, ok := newBounds(tc.upper); ok != tc.ok {
			t.Errorf("newBounds(%s): got %v; want %v", tc.name, ok, tc.ok)
		}
	}
}

// TestExplicitCountsAreExact converts any explicit layout: every observation
// is kept, and none leaves its bucket by more than one of ours.
func TestExplicitCountsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		upper := rapid.SliceOfNDistinct(rapid.Float64Range(1e-4, 100), 1, 20, rapid.ID[float64]).Draw(t, "bounds")
		slices.Sort(upper)
		b, ok := newBounds(upper)
		if !ok {
			t.Fatalf("newBounds(%v) refused", upper)
		}
		bucketNo := rapid.IntRange(0, len(upper)).Draw(t, "bucket")
		n := rapid.Uint64Range(0, 1<<50).Draw(t, "n")
		var inc increase
		b.spread[bucketNo].tell(n, &inc)
		var got uint64
		for _, x := range inc.buckets {
			got += x.n
			if bucketNo > 0 && bucketNo < len(upper) && (lowerBound(x.index+1) <= upper[bucketNo-1] || lowerBound(x.index) >= upper[bucketNo]) {
				t.Fatalf("bucket (%g, %g] told to (%g, %g]", upper[bucketNo-1], upper[bucketNo], lowerBound(x.index), lowerBound(x.index+1))
			}
		}
		if got != n || inc.count != n {
			t.Fatalf("%d observations: got %d in buckets, count %d", n, got, inc.count)
		}
	})
}

// TestExplicitQuantilesAgree compares with interpolation by logarithm in the
// source buckets.
func TestExplicitQuantilesAgree(t *testing.T) {
	b, _ := newBounds(fakeBounds)
	counts := []uint64{1000, 4000, 3000, 0, 500, 0, 0, 0, 0, 1200, 0, 0, 800, 0, 0, 0, 300, 0, 0, 0, 0}
	inc := increase{}
	for i, n := range counts {
		b.spread[i].tell(n, &inc)
	}
	d := newDense()
	d.addIncrease(&inc)
	var got [3]float64
	d.quantiles(quantilesShown, got[:])
	for i, q := range quantilesShown {
		want := interpolated(q, fakeBounds, counts, true)
		if math.Abs(got[i]/want-1) > 0.0906 {
			t.Errorf("quantile %g: got %g; want %g within a bucket of 9.05 %%", q, got[i], want)
		}
	}
}

// interpolated returns a quantile by the counts of explicit buckets, by value, as
// PromQL does for classic ones, or by logarithm.
func interpolated(q float64, upper []float64, counts []uint64, log bool) float64 {
	var all, cum uint64
	for _, n := range counts {
		all += n
	}
	rank, lo := q*float64(all), 0.0
	for i, n := range counts {
		if float64(cum+n) >= rank {
			part := (rank - float64(cum)) / float64(n)
			if log && lo > 0 {
				return lo * math.Pow(upper[i]/lo, part)
			}
			return lo + (upper[i]-lo)*part
		}
		cum, lo = cum+n, upper[i]
	}
	return lo
}

func TestExponentialCountsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(-1<<20, 1<<20).Draw(t, "index")
		from := rapid.IntRange(minScale, scale).Draw(t, "scale")
		n := rapid.Uint64().Draw(t, "n")
		var inc increase
		tellExponential(i, from, n, &inc)
		var got uint64
		for _, b := range inc.buckets {
			got += b.n
			if b.index < minIndex || b.index > maxIndex {
				t.Fatalf("bucket %d is out of range", b.index)
			}
		}
		if got != n || inc.count != n {
			t.Fatalf("bucket %d at scale %d: got %d of %d", i, from, got, n)
		}
	})
}

func TestDownscale(t *testing.T) {
	for _, tc := range []struct {
		name       string
		offset     int
		n          []uint64
		shift      int
		wantOffset int
		want       []uint64
	}{
		{"by nothing", -3, []uint64{1, 2}, 0, -3, []uint64{1, 2}},
		{"pairs", -4, []uint64{1, 2, 3, 4}, 1, -2, []uint64{3, 7}},
		{"odd begin", -3, []uint64{1, 2, 3}, 1, -2, []uint64{1, 5}},
		{"across zero", -1, []uint64{1, 2}, 1, -1, []uint64{1, 2}},
		{"all into one", 0, []uint64{1, 2, 3}, 8, 0, []uint64{6}},
		{"empty", 7, nil, 3, 0, nil},
	} {
		offset, n := downscale(nil, tc.offset, tc.n, tc.shift)
		if offset != tc.wantOffset || !slices.Equal(n, tc.want) {
			t.Errorf("%s: got %d %v; want %d %v", tc.name, offset, n, tc.wantOffset, tc.want)
		}
	}
}
