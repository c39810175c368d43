package activity

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestJudge(t *testing.T) {
	prev := point{start: 100, t: 200}
	for _, tc := range []struct {
		name     string
		prev     point
		start, t int64
		grown    bool
		want     verdict
	}{
		{"the next", prev, 100, 210, true, next},
		{"the same again", prev, 100, 200, true, duplicate},
		{"an older one", prev, 100, 190, false, outOfOrder},
		{"an older one of an older life", prev, 50, 190, false, outOfOrder},
		{"fell without a new start", prev, 100, 210, false, reset},
		{"a new life after the last point", prev, 205, 210, false, reset},
		{"a new life that has grown past the old one", prev, 205, 210, true, reset},
		{"a new life that began at the last point", prev, 200, 210, true, reset},
		{"the start moved within the life", prev, 150, 210, true, next},
		{"the start moved within the life and counts fell", prev, 150, 210, false, reset},
		{"an older life goes on beside", prev, 50, 210, true, conflict},
		{"no start, grown", point{t: 200}, 0, 210, true, next},
		{"no start, fell", point{t: 200}, 0, 210, false, reset},
		{"the start became known", point{t: 200}, 150, 210, true, next},
		{"the start became unknown", prev, 0, 210, true, next},
	} {
		if got := judge(&tc.prev, &point{start: tc.start, t: tc.t}, tc.grown); got != tc.want {
			t.Errorf("%s: got %v; want %v", tc.name, got, tc.want)
		}
	}
}

// atScale makes an exponential point of values.
func atScale(exp int, values []float64) point {
	p := point{exp: int8(exp)}
	if len(values) == 0 {
		return p
	}
	var idx []int
	for _, v := range values {
		idx = append(idx, fineIndex(v, exp))
		p.sum += v
	}
	lo := slices.Min(idx)
	p.offset = int32(lo)
	p.n = make([]uint64, slices.Max(idx)-lo+1)
	for _, i := range idx {
		p.n[i-lo]++
	}
	return p
}

// TestSubtractIsWhatHappened: whatever the scales of two points are, the
// increase holds the new observations, and in the right buckets where the
// source's are fine enough.
func TestSubtractIsWhatHappened(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.Float64Range(1e-5, 100)
		before := rapid.SliceOfN(value, 0, 50).Draw(t, "before")
		news := rapid.SliceOfN(value, 0, 50).Draw(t, "new")
		s1 := rapid.IntRange(-2, scale).Draw(t, "scale before")
		s2 := rapid.IntRange(-2, scale).Draw(t, "scale")
		prev, cur := atScale(s1, before), atScale(s2, append(slices.Clone(before), news...))
		inc, grown := subtract(&prev, &cur, &scratch{})
		if !grown {
			t.Fatalf("grown: got false; want true")
		}
		if inc.count != uint64(len(news)) {
			t.Fatalf("count: got %d; want %d", inc.count, len(news))
		}
		d := newDense()
		d.addIncrease(&inc)
		if d.count() != inc.count {
			t.Fatalf("buckets hold %d; want %d", d.count(), inc.count)
		}
		if s1 == scale && s2 == scale {
			want := newDense()
			for _, v := range news {
				want.add(indexOf(v), 1)
			}
			if want.n != d.n {
				t.Fatalf("increase is in other buckets than what happened")
			}
		}
		if len(before) > 0 {
			if _, grown := subtract(&cur, &point{exp: cur.exp}, &scratch{}); grown {
				t.Fatalf("a point that lost all its counts: got grown")
			}
		}
	})
}

func TestSubtractOtherLayout(t *testing.T) {
	a, _ := newBounds([]float64{1, 2})
	b, _ := newBounds([]float64{0.5, 1.5})
	prev := point{bounds: a, n: []uint64{5, 5, 0}, sum: 10}
	cur := point{bounds: b, n: []uint64{4, 10, 0}, sum: 13}
	inc, grown := subtract(&prev, &cur, &scratch{})
	if !grown || inc.count != 4 || inc.sum != 3 {
		t.Errorf("changed bounds: got count %d, sum %g, grown %v; want 4, 3, true", inc.count, inc.sum, grown)
	}
	d := newDense()
	d.addIncrease(&inc)
	if d.count() != 4 {
		t.Errorf("changed bounds: got %d in buckets; want 4", d.count())
	}
	if _, grown := subtract(&cur, &point{bounds: a, n: []uint64{1, 1, 1}}, &scratch{}); grown {
		t.Error("changed bounds with fewer counts: got grown; want a reset")
	}
}

func TestSubtractWithoutBuckets(t *testing.T) {
	none, _ := newBounds(nil)
	prev := point{bounds: none, n: []uint64{10}, sum: 1}
	cur := point{bounds: none, n: []uint64{14}, sum: 3}
	inc, _ := subtract(&prev, &cur, &scratch{})
	if inc.count != 4 || len(inc.buckets) != 1 || inc.buckets[0] != (bucket{indexOf(0.5), 4}) {
		t.Errorf("count and sum only: got %+v; want 4 at the mean, 0.5", inc)
	}
}
