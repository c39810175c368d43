package traces

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// all returns every span of a block as pdata.
func all(b *block) ptrace.Traces {
	td := ptrace.NewTraces()
	for i := range b.spans {
		rs := td.ResourceSpans().AppendEmpty()
		b.fillResource(rs, b.spans[i].resource)
		ss := rs.ScopeSpans().AppendEmpty()
		b.fillScope(ss, b.spans[i].scope)
		b.fill(ss.Spans().AppendEmpty(), i)
	}
	return td
}

func TestBlockRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var in []ptrace.Traces
		b := newBlock()
		for range 1 + r.IntN(3) {
			td := wildTraces(r)
			in = append(in, td)
			if n := add(b, td); n != 0 {
				t.Fatalf("seed %d: %d spans invalid", seed, n)
			}
		}
		want := canonical(t, in...)
		if got := canonical(t, all(b)); !slices.Equal(got, want) {
			t.Fatalf("seed %d: filled block differs\n got %v\nwant %v", seed, got, want)
		}
		back, err := decodeBlock(encodeBlock(nil, b))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := canonical(t, all(back)); !slices.Equal(got, want) {
			t.Fatalf("seed %d: block read back differs\n got %v\nwant %v", seed, got, want)
		}
	}
}

func TestBlockSharesGroups(t *testing.T) {
	b := newBlock()
	r := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		add(b, gatewayTraces(r, 5, base))
	}
	if len(b.resources) != 1 || len(b.scopes) != 1 {
		t.Errorf("ten batches of one process: got %d resources, %d scopes; want one each", len(b.resources), len(b.scopes))
	}
}

func TestBlockRefusesInvalid(t *testing.T) {
	b := newBlock()
	td := make1(spec{trace: 1, id: 1}, spec{trace: 0, id: 1}, spec{trace: 1, id: 0})
	if got := add(b, td); got != 2 || len(b.spans) != 1 {
		t.Errorf("append: got %d invalid, %d kept; want 2, 1", got, len(b.spans))
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	b := newBlock()
	add(b, wildTraces(rand.New(rand.NewPCG(3, 3))))
	good := encodeBlock(nil, b)
	for n := range good {
		if _, err := decodeBlock(good[:n]); err == nil {
			t.Fatalf("block cut after %d of %d bytes was read", n, len(good))
		}
	}
	for i := range good { // must not panic; that it reads is not excluded
		bad := bytes.Clone(good)
		bad[i] ^= 0x55
		decodeBlock(bad)
	}
}

// TestOpenedAgainstBlock: reading a part of the columns gives what reading all
// of them gives.
func TestOpenedAgainstBlock(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := newBlock()
		for range 1 + r.IntN(4) {
			add(b, wildTraces(r))
		}
		o, err := openBlock(encodeBlock(nil, b))
		if err != nil {
			t.Fatal(err)
		}
		for id := range b.traceIdx {
			want, got := newAssembly(ptrace.NewTraces()), newAssembly(ptrace.NewTraces())
			part, err := o.pick(id)
			if err != nil {
				t.Fatal(err)
			}
			want.add(b, id)
			got.add(part, id)
			want.finish()
			got.finish()
			if got, want := canonical(t, got.td), canonical(t, want.td); !slices.Equal(got, want) {
				t.Fatalf("seed %d, trace %s\n got %v\nwant %v", seed, id, got, want)
			}
		}
		if part, err := o.pick(traceID(77)); part != nil || err != nil {
			t.Errorf("a trace that is not there: got %v, %v", part, err)
		}
		for range 50 {
			q := wildQuery(r)
			m := newMatcher(q)
			type hit struct {
				id    pcommon.TraceID
				start uint64
			}
			byHit := func(a, b hit) int { return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.start, b.start)) }
			var want, got []hit
			m.block(b, func(id pcommon.TraceID, start uint64) { want = append(want, hit{id, start}) })
			if err := o.search(&m, rowSet{n: o.spans}, func(i int, start uint64) { got = append(got, hit{o.traceID(i), start}) }); err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(want, byHit)
			slices.SortFunc(got, byHit)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, %+v: got %d hits; want %d", seed, q, len(got), len(want))
			}
		}
	}
}

// wildQuery asks for something that wildTraces may have made.
func wildQuery(r *rand.Rand) (q Query) {
	if r.IntN(3) == 0 {
		q.Service = fmt.Sprint("service", r.IntN(4))
	}
	if r.IntN(3) == 0 {
		q.Operation = fmt.Sprint("s", r.IntN(6))
	}
	if r.IntN(4) == 0 {
		q.MinDuration = time.Duration(r.Int64N(1e9))
	}
	q.Tags = map[string]string{}
	for range r.IntN(3) {
		switch r.IntN(6) {
		case 0:
			q.Tags["error"] = fmt.Sprint(r.IntN(2) == 0)
		case 1:
			q.Tags["span.kind"] = []string{"server", "client"}[r.IntN(2)]
		case 2:
			q.Tags["otel.scope.name"] = "scope0"
		case 3:
			q.Tags[fmt.Sprint("s", r.IntN(5))] = []string{"true", "false", "", "[]", "{}"}[r.IntN(5)]
		default:
			q.Tags[fmt.Sprint("s", r.IntN(5))] = fmt.Sprint("s", r.IntN(5))
		}
	}
	return q
}

func FuzzDecodeBlock(f *testing.F) {
	for seed := range uint64(3) {
		b := newBlock()
		add(b, wildTraces(rand.New(rand.NewPCG(seed, 9))))
		f.Add(encodeBlock(nil, b))
		// zstd hides the columns from the fuzzer: give them bare, too.
		f.Add(bareBlock(b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4<<10 {
			return // says nothing new, and checkReadable takes its time
		}
		o, err := openBlock(data)
		if err != nil {
			return
		}
		m := newMatcher(Query{Tags: map[string]string{"s1": "s2", "error": "true"}})
		_ = o.search(&m, rowSet{n: o.spans}, func(int, uint64) {})
		b, err := o.block()
		if err != nil {
			return
		}
		checkReadable(t, b)
		for i := range o.traces {
			if _, err := o.rows(i); err != nil {
				t.Fatalf("trace %d of a block that was read: %v", i, err)
			}
		}
	})
}

// bareBlock encodes a block without compression.
func bareBlock(b *block) []byte {
	o, err := openBlock(encodeBlock(nil, b))
	if err != nil {
		panic(err)
	}
	out := []byte(blockMagic)
	for _, n := range []int{o.spans, o.traces, o.strings, len(o.groups), len(o.ids)} {
		out = binary.AppendUvarint(out, uint64(n))
	}
	out = append(out, o.ids...)
	var frames []byte
	for _, f := range o.frames {
		data, err := f.inflate(new([]byte))
		if err != nil {
			panic(err)
		}
		frames = append(frames, data...)
		out = binary.AppendUvarint(binary.AppendUvarint(out, uint64(len(data))), uint64(len(data)))
	}
	return append(out, frames...)
}

// checkReadable touches all of a block and sees it survive another round.
func checkReadable(t *testing.T, b *block) {
	want := canonical(t, all(b))
	if len(b.strs.list) == 0 {
		return // without spans it need not have strings
	}
	back, err := decodeBlock(encodeBlock(nil, b))
	if err != nil {
		t.Fatalf("a block that was read could not be read again: %v", err)
	}
	if got := canonical(t, all(back)); !slices.Equal(got, want) {
		t.Fatalf("second round differs\n got %v\nwant %v", got, want)
	}
}

func TestSummaryRoundTrip(t *testing.T) {
	b := newBlock()
	add(b, gatewayTraces(rand.New(rand.NewPCG(1, 2)), 50, base))
	want := summarize(b)
	got, err := decodeSummary(want.encode())
	if err != nil || !slices.Equal(got.ops, want.ops) || got.minStart != want.minStart || got.maxStart != want.maxStart || got.spans != 150 || !got.complete {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func FuzzDecodeSummary(f *testing.F) {
	b := newBlock()
	add(b, gatewayTraces(rand.New(rand.NewPCG(1, 2)), 5, base))
	s := summarize(b)
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSummary(data)
		if err != nil {
			return
		}
		again, err := decodeSummary(s.encode())
		if err != nil || !slices.Equal(again.ops, s.ops) {
			t.Fatalf("round trip: got %+v, %v; want %+v", again, err, s)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	load := newWireLoad(r, 60)
	b.ReportAllocs()
	n := 0
	bl := newBlock()
	for b.Loop() {
		t := load.next(r)
		bl.append(t)
		if n += t.Spans(); len(bl.spans) >= maxBlockSpans {
			bl = newBlockAfter(bl)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/span")
}

func BenchmarkEncode(b *testing.B) {
	bl := newBlock()
	add(bl, gatewayTraces(rand.New(rand.NewPCG(1, 2)), maxBlockSpans/3, base))
	b.ReportAllocs()
	var data []byte
	index := 0
	for b.Loop() {
		data = encodeBlock(data[:0], bl)
		x := makeIndex(bl)
		index = x.size()
	}
	spans := float64(len(bl.spans))
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/spans, "ns/span")
	b.ReportMetric(float64(len(data))/spans, "B/span")
	b.ReportMetric(float64(index)/spans, "indexB/span")
}

func BenchmarkDecode(b *testing.B) {
	bl := newBlock()
	add(bl, gatewayTraces(rand.New(rand.NewPCG(1, 2)), maxBlockSpans/3, base))
	data := encodeBlock(nil, bl)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeBlock(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(bl.spans)), "ns/span")
}

// BenchmarkReadTrace opens a block that is in no cache and reads one trace.
func BenchmarkReadTrace(b *testing.B) {
	bl := newBlock()
	add(bl, gatewayTraces(rand.New(rand.NewPCG(1, 2)), maxBlockSpans/3, base))
	data := encodeBlock(nil, bl)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o, err := openBlock(data)
		if err != nil {
			b.Fatal(err)
		}
		if part, err := o.pick(bl.traces[i%len(bl.traces)]); err != nil || len(part.spans) != 3 {
			b.Fatal(err)
		}
	}
}

// BenchmarkSearchBlock opens a block that is in no cache and searches it.
func BenchmarkSearchBlock(b *testing.B) {
	bl := newBlock()
	add(bl, gatewayTraces(rand.New(rand.NewPCG(1, 2)), maxBlockSpans/3, base))
	data := encodeBlock(nil, bl)
	m := newMatcher(Query{
		Service: "binnacle-gateway", Operation: "GET /api/v1/resource3/{id}", MinDuration: time.Millisecond,
		Tags: map[string]string{"http.response.status_code": "502"},
	})
	b.ReportAllocs()
	for b.Loop() {
		o, err := openBlock(data)
		if err != nil {
			b.Fatal(err)
		}
		found := 0
		if err := o.search(&m, rowSet{n: o.spans}, func(int, uint64) { found++ }); err != nil || found == 0 {
			b.Fatal(found, err)
		}
	}
}
