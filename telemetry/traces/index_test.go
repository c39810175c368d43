package traces

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// lookUpAll returns the rows of a block that its index lets through.
func lookUpAll(t testing.TB, x blockIndex, n int, m *matcher) rowSet {
	t.Helper()
	r := rowSet{n: n}
	for _, h := range m.terms {
		page := x.pages[0]
		if len(x.pages) > 1 {
			page = x.pages[pageOf(h)]
		}
		if err := r.lookUp(page, h); err != nil {
			t.Fatal(err)
		}
	}
	r.durations(x.durations, durationClass(m.minDuration), durationClass(m.maxDuration))
	return r
}

// TestIndexLosesNothing asks blocks of everything that OTLP knows for what is in
// them, every attribute of every span in turn, and compares what is found through
// the index with what is found without it.
func TestIndexLosesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, batches := range []int{1, 5, 60} {
		b := newBlock()
		for range batches {
			add(b, wildTraces(r))
		}
		if batches == 60 {
			add(b, gatewayTraces(r, 600, base))
		}
		o, err := openBlock(encodeBlock(nil, b))
		if err != nil {
			t.Fatal(err)
		}
		x := makeIndex(b)
		if many := len(b.spans) > smallSpans; many != (len(x.pages) == indexPages) || many != (batches == 60) {
			t.Fatalf("%d batches, %d spans: %d pages", batches, len(b.spans), len(x.pages))
		}
		passed, all, matches := 0, 0, 0
		ask := func(q Query) {
			m := newMatcher(q)
			find := func(may rowSet) (out []string) {
				if err := o.search(&m, may, func(trace int, start uint64) {
					out = append(out, fmt.Sprint(trace, start))
				}); err != nil {
					t.Fatal(err)
				}
				return out
			}
			may := lookUpAll(t, x, o.spans, &m)
			want, got := find(rowSet{n: o.spans}), find(may)
			if !slices.Equal(got, want) {
				t.Fatalf("%+v: %d matches through the index; want %d", q, len(got), len(want))
			}
			for row := range o.spans {
				if all++; may.has(row) {
					passed++
				}
			}
			matches += len(want)
		}
		for i := 0; i < len(b.spans); i += 1 + len(b.spans)/12 {
			s := &b.spans[i]
			service := b.strs.list[b.resources[s.resource].service]
			q := Query{
				Service: service, Operation: b.strs.list[s.name], Tags: map[string]string{},
				MinDuration: time.Duration(s.duration()), MaxDuration: time.Duration(s.duration()),
			}
			ask(q)
			q.Operation = ""
			for _, a := range append(slices.Clone(b.list(s.attrs)), b.list(b.resources[s.resource].attrs)...) {
				q.Tags[b.strs.list[a.key]] = b.valueString(a)
				ask(q)
			}
			for tag, of := range derivedTags {
				ask(Query{Tags: map[string]string{tag: of(b, s)}})
				ask(Query{Tags: map[string]string{tag: "nothing"}})
			}
			ask(Query{Tags: map[string]string{"nobody": "nothing"}})
		}
		t.Logf("%5d spans: %d of %d rows let through for %d matches", len(b.spans), passed, all, matches)
	}
}

func TestIndexFalsePositives(t *testing.T) {
	b := newBlock()
	add(b, gatewayTraces(rand.New(rand.NewPCG(1, 2)), 1000, base))
	x := makeIndex(b)
	wrong := 0
	for i := range 10_000 {
		m := newMatcher(Query{Tags: map[string]string{"nobody": fmt.Sprint(i)}})
		if may := lookUpAll(t, x, len(b.spans), &m); !may.empty() {
			wrong++
		}
	}
	t.Logf("%d bytes for %d spans, %d of 10,000 wrong", x.size(), len(b.spans), wrong)
	if wrong > 200 {
		t.Errorf("%d of 10,000 absent attributes pass; want at most 200", wrong)
	}
}

func TestDurationClass(t *testing.T) {
	last := byte(0)
	for d := uint64(1); d < 1<<62; d += 1 + d/40 {
		c := durationClass(d)
		if c < last {
			t.Fatalf("class of %d is %d; of less %d", d, c, last)
		}
		if below := durationClass(d - d/7); d > 2000 && d < 1<<40 && below == c {
			t.Fatalf("%d and %d are both of class %d", d, d-d/7, c)
		}
		last = c
	}
}

// FuzzLookUp reads pages that nobody wrote.
func FuzzLookUp(f *testing.F) {
	b := newBlock()
	add(b, gatewayTraces(rand.New(rand.NewPCG(1, 2)), 40, base))
	h := operationTerm("binnacle-gateway", "GET")
	f.Add(makeIndex(b).pages[0], h, uint16(len(b.spans)))
	f.Add([]byte{0, 1, 1, 2, 3, 4, 2, postingBut, 5}, uint64(0x04030201), uint16(70))
	f.Fuzz(func(t *testing.T, page []byte, h uint64, n uint16) {
		r := rowSet{n: int(n)}
		before := r.n
		if err := r.lookUp(page, h); err != nil && (r.words != nil || r.n != before) {
			t.Fatal("a malformed page decided something")
		}
		r.durations(page, 3, 200)
		for row := r.n; row < r.n+130; row++ {
			if r.words != nil && r.has(row) {
				t.Fatalf("row %d of %d", row, r.n)
			}
		}
	})
}

// TestNarrow: rows that the columns of a tag rule out are those that have it not,
// with keys that stand twice and values of several types.
func TestNarrow(t *testing.T) {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", "a")
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	for i := range 3 * fewRows {
		sp := spans.AppendEmpty()
		sp.SetTraceID(pcommon.TraceID{1, byte(i >> 8), byte(i)})
		sp.SetSpanID(pcommon.SpanID{1})
		sp.SetStartTimestamp(pcommon.Timestamp(base.UnixNano()))
		switch i % 5 {
		case 0:
			sp.Attributes().PutStr("k", fmt.Sprint(i))
		case 1:
			sp.Attributes().PutInt("k", int64(i))
		case 2:
			sp.Attributes().PutDouble("k", float64(i)+0.5)
		case 3: // pdata has no way to put a key twice but this
			sp.Attributes().PutStr("k", fmt.Sprint(i))
			sp.Attributes().PutStr("K", fmt.Sprint(i+1))
		}
		sp.Attributes().PutStr("other", fmt.Sprint(i%2))
	}
	body, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	key := []byte{1<<3 | 2, 1, 'K'}
	if !bytes.Contains(body, key) {
		t.Fatal("BUG: the key is not where it is changed")
	}
	var tr wire.Traces
	if err := tr.Read(bytes.ReplaceAll(body, key, []byte{1<<3 | 2, 1, 'k'}), wire.Limits{Elements: 1 << 20, Attributes: 10, Depth: 1}); err != nil {
		t.Fatal(err)
	}
	b := newBlock()
	b.append(&tr)
	o, err := openBlock(encodeBlock(nil, b))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3*fewRows + 2 {
		for _, value := range []string{fmt.Sprint(i), fmt.Sprint(float64(i) + 0.5)} {
			m := newMatcher(Query{Service: "a", Tags: map[string]string{"k": value, "other": fmt.Sprint(i % 2)}})
			var want, got []string
			m.block(b, func(id pcommon.TraceID, _ uint64) { want = append(want, id.String()) })
			if err := o.search(&m, rowSet{n: o.spans}, func(t int, _ uint64) { got = append(got, o.traceID(t).String()) }); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("k=%s: got %v; want %v", value, got, want)
			}
		}
	}
}
