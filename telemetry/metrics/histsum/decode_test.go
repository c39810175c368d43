package histsum

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// aChunk returns a chunk of n random samples, growing by up to 1<<grow.
func aChunk(t testing.TB, r *rand.Rand, n, grow int) []byte {
	t.Helper()
	c := chunkenc.NewHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	h := &histogram.Histogram{Schema: 3}
	width := 0
	for range 1 + r.IntN(3) {
		s := histogram.Span{Offset: int32(r.IntN(20)), Length: uint32(1 + r.IntN(10))}
		h.PositiveSpans = append(h.PositiveSpans, s)
		width += int(s.Length)
	}
	if r.IntN(3) == 0 {
		h.Schema = histogram.CustomBucketsSchema
		for i := range 80 {
			h.CustomValues = append(h.CustomValues, []float64{float64(i) / 1000, float64(i) / 3}[r.IntN(2)]+float64(i))
		}
	} else {
		h.PositiveSpans[0].Offset -= 10
	}
	counts := make([]int64, width)
	at := int64(1_700_000_000_000)
	for i := range n {
		h.PositiveBuckets = make([]int64, width)
		prev := int64(0)
		for j := range counts {
			more := r.Int64N(1<<r.IntN(grow+1) + 1)
			counts[j] += more
			h.Count += uint64(more)
			h.PositiveBuckets[j] = counts[j] - prev
			prev = counts[j]
		}
		h.Sum += r.Float64() * float64(int(1)<<r.IntN(grow+1))
		if h.Schema == 3 {
			h.ZeroCount += r.Uint64N(3)
		}
		if i > 0 && r.IntN(40) == 0 {
			h = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
		}
		if _, _, app, err = app.AppendHistogram(nil, 0, at, h.Copy(), true); err != nil {
			t.Fatal(err)
		}
		if value.IsStaleNaN(h.Sum) {
			break
		}
		at += []int64{10_000, 10_000, 10_001, 2_000, 1 << 34}[r.IntN(5)]
	}
	return bytes.Clone(c.Bytes())
}

// theirs decodes a chunk with chunkenc's own iterator.
func theirs(chunk []byte) (r rows, err error) {
	r.empty()
	c := chunkenc.NewHistogramChunk()
	c.Reset(chunk)
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		t, h := it.AtFloatHistogram(nil)
		if value.IsStaleNaN(h.Sum) {
			continue
		}
		r.schema, r.bounds = h.Schema, h.CustomValues
		r.t, r.count, r.sum, r.zero = append(r.t, t), append(r.count, h.Count), append(r.sum, h.Sum), append(r.zero, h.ZeroCount)
		at, n := int32(0), 0
		for i, s := range h.PositiveSpans {
			at += s.Offset
			if i == 0 {
				r.lo = append(r.lo, at)
			} else {
				r.all = append(r.all, make([]float64, s.Offset)...)
			}
			r.all = append(r.all, h.PositiveBuckets[n:n+int(s.Length)]...)
			n += int(s.Length)
			at += int32(s.Length)
		}
		if len(h.PositiveSpans) == 0 {
			r.lo = append(r.lo, 0)
		}
		r.off = append(r.off, len(r.all))
	}
	return r, it.Err()
}

func compare(t *testing.T, chunk []byte) {
	t.Helper()
	var ours, bare rows
	ours.empty()
	bare.empty()
	_, err := ours.decoder.read(chunk, &ours, math.MinInt64, math.MaxInt64, true, 1<<20)
	_, bareErr := bare.decoder.read(chunk, &bare, math.MinInt64, math.MaxInt64, false, 1<<20)
	if err == nil && bareErr != nil {
		t.Fatalf("without buckets: %v", bareErr)
	}
	if err != nil {
		return // left to the engine
	}
	want, err := theirs(chunk)
	if err != nil {
		t.Fatalf("taken here: theirs says %v", err)
	}
	same := func(what string, a, b []float64) {
		t.Helper()
		if len(a) != len(b) {
			t.Fatalf("%s: %d of %d", what, len(a), len(b))
		}
		for i := range a {
			if math.Float64bits(a[i]) != math.Float64bits(b[i]) {
				t.Fatalf("%s %d: got %v, want %v", what, i, a[i], b[i])
			}
		}
	}
	for _, got := range []*rows{&ours, &bare} {
		if len(got.t) != len(want.t) {
			t.Fatalf("%d rows; want %d", len(got.t), len(want.t))
		}
		for i := range got.t {
			if got.t[i] != want.t[i] || got.lo[i] != want.lo[i] {
				t.Fatalf("row %d: at %d from bucket %d; want %d, %d", i, got.t[i], got.lo[i], want.t[i], want.lo[i])
			}
		}
		if len(got.t) > 0 {
			same("bound", got.bounds, want.bounds)
		}
		if len(got.t) > 0 && got.schema != want.schema {
			t.Fatalf("schema %d; want %d", got.schema, want.schema)
		}
		same("count", got.count, want.count)
		same("sum", got.sum, want.sum)
		same("zero", got.zero, want.zero)
	}
	same("bucket", ours.all, want.all)
	for i := range ours.off {
		if ours.off[i] != want.off[i] {
			t.Fatalf("row %d begins at %d; want %d", i, ours.off[i], want.off[i])
		}
	}
}

// TestDecode holds the decoder against chunkenc's, and wants it to take all that
// stores have.
func TestDecode(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		chunk := aChunk(t, r, r.IntN(60), r.IntN(45))
		compare(t, chunk)
		var got rows
		got.empty()
		if _, err := got.decoder.read(chunk, &got, 0, math.MaxInt64, true, 1<<20); err != nil {
			t.Fatalf("%x: %v", chunk, err)
		}
	}
}

// FuzzDecode holds the decoder against chunkenc's for any bytes.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		f.Add(aChunk(f, r, i, 2*i%50))
	}
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0})
	f.Fuzz(func(t *testing.T, chunk []byte) {
		if len(chunk) < 3 || len(chunk) > 4096 {
			return
		}
		compare(t, chunk)
	})
}

// BenchmarkDecode reads chunks of 24 buckets as roll-ups have them.
func BenchmarkDecode(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	c := chunkenc.NewHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		b.Fatal(err)
	}
	h := &histogram.Histogram{Schema: 3, PositiveSpans: []histogram.Span{{Offset: -50, Length: 24}}}
	var counts [24]int64
	const samples = 50
	for i := range samples {
		h.PositiveBuckets = nil
		prev := int64(0)
		for j := range counts {
			more := r.Int64N(4)
			counts[j] += more
			h.Count += uint64(more)
			h.PositiveBuckets = append(h.PositiveBuckets, counts[j]-prev)
			prev = counts[j]
		}
		h.Sum = float64(h.Count) / 64
		if _, _, app, err = app.AppendHistogram(nil, 0, int64(i)*10_000, h.Copy(), true); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("ours", func(b *testing.B) {
		var got rows
		for b.Loop() {
			got.empty()
			if _, err := got.decoder.read(c.Bytes(), &got, 0, math.MaxInt64, true, 1<<20); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/samples, "ns/sample")
	})
	b.Run("chunkenc", func(b *testing.B) {
		var it chunkenc.Iterator
		var h histogram.FloatHistogram
		for b.Loop() {
			it = c.Iterator(it)
			for it.Next() != chunkenc.ValNone {
				it.AtFloatHistogram(&h)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/samples, "ns/sample")
	})
}
