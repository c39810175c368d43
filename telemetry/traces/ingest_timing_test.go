package traces

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
)

// BenchmarkIngest writes gateway-shaped spans of ten attributes, 510 a request,
// to a store on disk as fast as it takes them and reports processor time and,
// after a full compaction, bytes on disk for each span. Reading and decoding
// requests is package otlp's part.
func BenchmarkIngest(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var reqs []ptrace.Traces
	for i := range 60 {
		reqs = append(reqs, gatewayTraces(r, 170, base.Add(time.Duration(i)*100*time.Millisecond)))
	}
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	spans, n := 0, 0
	start := cpu()
	for b.Loop() {
		td := reqs[n%len(reqs)]
		rekey(td, r.Uint64())
		if _, _, err := s.WriteTraces(b.Context(), binnacle.Origin{}, td); err != nil {
			b.Fatal(err)
		}
		spans += td.SpanCount()
		n++
	}
	if err := s.flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpu()-start)/float64(spans)/1e3, "cpu-us/span")
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := s.db.Compact(b.Context(), key(0, 0), key(1<<31, 0), true); err != nil {
		b.Fatal(err)
	}
	m := s.db.Metrics()
	b.ReportMetric(float64(m.Total().TablesSize)/float64(spans), "disk-B/span")
	b.ReportMetric(float64(s.meters.blockBytes.Get())/float64(spans), "block-B/span")
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rekey gives the traces of a request ids of their own.
func rekey(td ptrace.Traces, x uint64) {
	for _, rs := range td.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, sp := range ss.Spans().All() {
				id := [16]byte(sp.TraceID())
				for i := range 8 {
					id[i] ^= byte(x >> (8 * i))
				}
				sp.SetTraceID(pcommon.TraceID(id))
			}
		}
	}
}
