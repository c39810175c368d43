package manager

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// heldExporter takes spans when it is let go, and then fails if it is told so.
type heldExporter struct {
	let  chan struct{}
	fail bool
	got  int
}

func (e *heldExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	<-e.let
	if e.fail {
		return errors.New("refused")
	}
	e.got += len(spans)
	return nil
}

func (e *heldExporter) Shutdown(context.Context) error { return nil }

// TestOwnSpansAreCounted ends more spans than can wait and wants each either
// exported or counted.
func TestOwnSpansAreCounted(t *testing.T) {
	for _, fail := range []bool{false, true} {
		set := metrics.NewSet()
		out := &heldExporter{let: make(chan struct{}), fail: fail}
		p := newOwnSpans(out, set)
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p))
		const ended = 5000
		for range ended {
			_, s := provider.Tracer("t").Start(t.Context(), "s")
			s.End()
		}
		if got := p.dropped.Get(); got != ended-ownSpansQueue {
			t.Errorf("nothing goes out: %d of %d dropped; want all but %d", got, ended, ownSpansQueue)
		}
		close(out.let)
		if err := provider.Shutdown(t.Context()); err != nil && !fail {
			t.Fatal(err)
		}
		if sum := out.got + int(p.dropped.Get()+p.failed.Get()); sum != ended || p.waiting.Load() != 0 {
			t.Errorf("fail %v: %d exported, %d dropped, %d failed, %d waiting; want %d in all", fail, out.got, p.dropped.Get(), p.failed.Get(), p.waiting.Load(), ended)
		}
		var text strings.Builder
		set.WritePrometheus(&text)
		if !strings.Contains(text.String(), `binnacle_own_spans_lost_total{reason="queue"} 2952`) {
			t.Errorf("metrics:\n%s", &text)
		}
	}
}
