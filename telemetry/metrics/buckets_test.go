package metrics

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// counts returns the counts of d by index.
func (d dense) byIndex() map[int32]uint64 {
	m := map[int32]uint64{}
	for i, c := range d.counts {
		if c != 0 {
			m[d.offset+int32(i)] += c
		}
	}
	return m
}

// randomRow makes a row with runs of empty buckets.
func randomRow(r *rand.Rand) dense {
	src := wire.Buckets{Offset: int32(r.IntN(400) - 200)}
	n := r.IntN(60)
	for range n {
		c := uint64(0)
		if r.IntN(3) == 0 {
			c = r.Uint64N(1 << uint(1+r.IntN(40)))
		}
		src.Counts = binary.AppendUvarint(src.Counts, c)
	}
	var d dense
	d.load(src, n)
	return d
}

func equalRows(a, b map[int32]uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func TestDownscale(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		d := randomRow(r)
		by := int32(r.IntN(12))
		want := map[int32]uint64{}
		for i, c := range d.byIndex() {
			want[int32(math.Floor(float64(i)/math.Exp2(float64(by))))] += c
		}
		before := slices.Clone(d.counts)
		d.downscale(by)
		if !equalRows(d.byIndex(), want) {
			t.Fatalf("downscale of %v by %d: got %v; want %v", before, by, d.byIndex(), want)
		}
		if n := len(d.counts); n > 0 && (d.counts[0] == 0 || d.counts[n-1] == 0) {
			t.Fatalf("downscale of %v by %d: got %v, which begins or ends empty", before, by, d.counts)
		}
	}
}

func TestAddRows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		a, b := randomRow(r), randomRow(r)
		want := a.byIndex()
		for i, c := range b.byIndex() {
			want[i] += c
		}
		w := width(a, b)
		a.add(b)
		if !equalRows(a.byIndex(), want) {
			t.Fatalf("sum: got %v; want %v", a.byIndex(), want)
		}
		if int64(len(a.counts)) != w {
			t.Fatalf("sum has %d buckets; width said %d", len(a.counts), w)
		}
	}
}

// TestEncode reads encoded rows back with Prometheus's iterator.
func TestEncode(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var enc bucketEncoder
	var l layout
	for range 2000 {
		pos, neg := randomRow(r), randomRow(r)
		h, _, err := enc.encode(0, pos, neg, 1, &l)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range pos.counts {
			h.Count += c
		}
		for _, c := range neg.counts {
			h.Count += c
		}
		if err := h.Validate(); err != nil {
			t.Fatalf("encoding %v and %v: %v", pos, neg, err)
		}
		read := func(it histogram.BucketIterator[uint64]) map[int32]uint64 {
			m := map[int32]uint64{}
			for it.Next() {
				if b := it.At(); b.Count != 0 {
					m[b.Index-1] = b.Count
				}
			}
			return m
		}
		if got, want := read(h.PositiveBucketIterator()), pos.byIndex(); !equalRows(got, want) {
			t.Fatalf("positive: got %v; want %v", got, want)
		}
		if got, want := read(h.NegativeBucketIterator()), neg.byIndex(); !equalRows(got, want) {
			t.Fatalf("negative: got %v; want %v", got, want)
		}
		// A second sample of the same layout shares the spans.
		again, _, err := enc.encode(0, pos, neg, 1, &l)
		if err != nil {
			t.Fatal(err)
		}
		if len(h.PositiveSpans) > 0 && &h.PositiveSpans[0] != &again.PositiveSpans[0] {
			t.Fatal("equal layouts do not share spans")
		}
	}
}

func TestEncodeOutOfRange(t *testing.T) {
	var enc bucketEncoder
	for _, d := range []dense{{offset: math.MaxInt32, counts: []uint64{1}}, {counts: []uint64{math.MaxUint64}}} {
		if h, _, err := enc.encode(0, d, dense{}, 1, &layout{}); err == nil {
			t.Errorf("encode of %v: got %v; want an error", d, h)
		}
	}
}

// TestWideHistogram checks that a row with too many buckets is merged, not
// refused, and keeps its count.
func TestWideHistogram(t *testing.T) {
	s := openStore(t)
	md, ms := payloadOf("service.name", "x")
	counts := make([]uint64, 5000)
	for i := range counts {
		counts[i] = 1
	}
	exponential(ms, "h", now, now, 8, -2500, counts, 1)
	write(t, s, node1, md)
	wantQuery(t, s, `histogram_count(h_seconds)`, now, `{job="x"} 5000`)
}

func TestExpoAdd(t *testing.T) {
	a := &expo{scale: 0, count: 1, sum: 1, pos: dense{offset: -1000, counts: []uint64{1}}}
	b := &expo{scale: 2, count: 1, sum: 2, zero: 0, pos: dense{offset: 8000, counts: []uint64{1}}}
	if err := a.add(b); err != nil {
		t.Fatal(err)
	}
	// 9 000/4 and 1 000 indices apart at scale 0: merged once.
	if a.scale != -1 || a.count != 2 || a.sum != 3 || !equalRows(a.pos.byIndex(), map[int32]uint64{-500: 1, 1000: 1}) {
		t.Errorf("sum: got scale %d, count %d, sum %g, %v", a.scale, a.count, a.sum, a.pos.byIndex())
	}
	far := &expo{scale: histogram.ExponentialSchemaMin, pos: dense{offset: math.MaxInt32 - 1, counts: []uint64{1}}}
	if err := far.add(&expo{scale: histogram.ExponentialSchemaMin, pos: dense{offset: math.MinInt32, counts: []uint64{1}}}); err == nil {
		t.Error("sum over all of int32: got no error")
	}
}
