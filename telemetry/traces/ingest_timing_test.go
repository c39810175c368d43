package traces

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// BenchmarkIngest writes gateway-shaped spans of ten attributes, 510 a request,
// from the bytes of requests to a store on disk as fast as it takes them and
// reports processor time and, after a full compaction, bytes on disk for each span.
func BenchmarkIngest(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	load := newWireLoad(r, 60)
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	spans := 0
	start := cpu()
	for b.Loop() {
		t := load.next(r)
		if _, _, err := s.WriteTraces(b.Context(), binnacle.Origin{}, t); err != nil {
			b.Fatal(err)
		}
		spans += t.Spans()
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

// wireLoad has requests of 510 spans in bytes.
type wireLoad struct {
	bodies [][]byte
	n      int
	t      wire.Traces
}

func newWireLoad(r *rand.Rand, requests int) *wireLoad {
	l := &wireLoad{}
	for i := range requests {
		body, err := ptraceotlp.NewExportRequestFromTraces(gatewayTraces(r, 170, base.Add(time.Duration(i)*100*time.Millisecond))).MarshalProto()
		if err != nil {
			panic(err)
		}
		l.bodies = append(l.bodies, body)
	}
	return l
}

// next reads a request and gives its traces ids of their own. What it returns is
// valid until the next.
func (l *wireLoad) next(r *rand.Rand) *wire.Traces {
	if err := l.t.Read(l.bodies[l.n%len(l.bodies)], wire.Limits{Elements: 1 << 20, Attributes: 128, Events: 100, Depth: 10}); err != nil {
		panic(err)
	}
	l.n++
	x := r.Uint64()
	for i := range l.t.Resources {
		for j := range l.t.Resources[i].Scopes {
			for k := range l.t.Resources[i].Scopes[j].Spans {
				id := &l.t.Resources[i].Scopes[j].Spans[k].TraceID
				binary.LittleEndian.PutUint64(id[:], binary.LittleEndian.Uint64(id[:])^x)
			}
		}
	}
	return &l.t
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
