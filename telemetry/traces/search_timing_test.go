package traces

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// BenchmarkSearch searches an hour of gateway-shaped spans on disk, a hundred
// thousand or, with BINNACLE_LOAD=full, ten million, each time for something
// else, and reports processor time.
func BenchmarkSearch(b *testing.B) {
	requests := 200
	if os.Getenv("BINNACLE_LOAD") == "full" {
		requests = 10_000_000 / 510
	}
	r := rand.New(rand.NewPCG(1, 2))
	now := base.Add(time.Hour)
	s, err := Open(Options{Dir: b.TempDir(), now: func() time.Time { return now }})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var templates []ptrace.Traces
	for range 200 {
		templates = append(templates, gatewayTraces(r, 170, base))
	}
	var ids []pcommon.TraceID
	for n := range requests {
		td := templates[n%len(templates)]
		rekey(td, r.Uint64())
		shift := time.Duration(float64(n) / float64(requests) * float64(time.Hour))
		shiftTo(td, base.Add(shift))
		if _, _, err := writeTo(b.Context(), s, td); err != nil {
			b.Fatal(err)
		}
		ids = append(ids, td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(r.IntN(510)).TraceID())
	}
	if err := s.flush(); err != nil {
		b.Fatal(err)
	}
	// What is left to do of the writing is not the queries' time.
	for runtime.GC(); s.db.Metrics().Compact.NumInProgress > 0; {
		time.Sleep(10 * time.Millisecond)
	}
	run := func(name string, ask func() (int, error)) {
		b.Run(name, func(b *testing.B) {
			found, start := 0, cpu()
			for b.Loop() {
				n, err := ask()
				if err != nil {
					b.Fatal(err)
				}
				found += n
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N)/1e6, "cpu-ms")
			b.ReportMetric(float64(found)/float64(b.N), "traces")
		})
	}
	search := func(name string, q func() Query) {
		run(name, func() (int, error) {
			q := q()
			q.Service, q.Start, q.End = "binnacle-gateway", base, now.Add(time.Minute)
			found, err := s.Search(b.Context(), q)
			return len(found), err
		})
	}
	operation := func() string { return fmt.Sprintf("GET /api/v1/resource%d/{id}", r.IntN(20)) }
	bad := map[string]string{"http.response.status_code": "502"}
	run("ID", func() (int, error) {
		td, err := s.Trace(b.Context(), ids[r.IntN(len(ids))])
		return min(td.SpanCount(), 1), err
	})
	search("Tag", func() Query { return Query{Operation: operation(), Tags: bad} })
	search("Slow", func() Query { return Query{Operation: operation(), Tags: bad, MinDuration: 5 * time.Millisecond} })
	search("Slowest", func() Query { return Query{Operation: operation(), Tags: bad, MinDuration: 25 * time.Millisecond} })
	search("ServiceSlowest", func() Query { return Query{Tags: bad, MinDuration: 50 * time.Millisecond} })
	search("Client", func() Query {
		return Query{MinDuration: 5 * time.Millisecond, Tags: map[string]string{"client.address": fmt.Sprintf("10.0.%d.%d", r.IntN(4), r.IntN(256))}}
	})
	search("Nobody", func() Query {
		return Query{Operation: operation(), Tags: map[string]string{"client.address": fmt.Sprint("none-", r.Int())}}
	})
}

// shiftTo moves the spans of a request in time.
func shiftTo(td ptrace.Traces, to time.Time) {
	spans := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
	by := int64(pcommon.NewTimestampFromTime(to)) - int64(spans.At(0).StartTimestamp())
	for _, sp := range spans.All() {
		sp.SetStartTimestamp(pcommon.Timestamp(int64(sp.StartTimestamp()) + by))
		sp.SetEndTimestamp(pcommon.Timestamp(int64(sp.EndTimestamp()) + by))
	}
}
