package telemetry

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

// Names of a stage's attributes, those of krakend-otel.
const (
	keyStage    = attribute.Key("krakend.stage")
	keyComplete = attribute.Key("complete")
)

// Stage records a part of a request's way through the gateway as a span of its
// own, for who asks for that: everything between the endpoint and its answer, or
// between a backend's call and what is made of its answer. It is used by all
// requests of a generation.
type Stage struct {
	t       *Telemetry
	name    string
	raw     []byte
	headers *headerFilter
}

// StageOptions say what a stage's spans carry beside their times.
type StageOptions struct {
	Static  []attribute.KeyValue
	Headers HeaderOptions
}

// NewStage returns the stage of that kind, "proxy" or "backend", for route; name
// is that of its spans.
func (s *Scope) NewStage(kind, name string, route *Route, o StageOptions) *Stage {
	var w spanWriter
	w.raw(encodeAttributes(o.Static))
	w.raw(s.revision)
	w.text(keyStage, kind)
	if route != nil && route.Template != "" {
		w.text(keyRoute, route.Template)
	}
	return &Stage{t: s.t, name: name, raw: w.b, headers: newHeaderFilter(o.Headers)}
}

// StageSpan is a stage under way.
type StageSpan struct {
	s     *Stage
	f     *flight
	start time.Time
}

// Begin returns the context for what is done within the stage, and the span to
// end; nil, and ctx itself, when the request's trace is not kept.
func (s *Stage) Begin(ctx context.Context) (context.Context, *StageSpan) {
	outer := flightOf(ctx)
	if outer == nil || !outer.sc.IsSampled() {
		return ctx, nil
	}
	f := newFlight(detached{ctx, ctx}, newIdentity(outer.sc, true))
	return f, &StageSpan{s: s, f: f, start: time.Now()}
}

// StageResult is how a stage ended.
type StageResult struct {
	Err error
	// Status is that of the answer, 0 for unknown; Complete says that no part of
	// it is missing.
	Status            int
	Complete          bool
	Request, Response http.Header
}

// End writes the span. What a stage gives up because the client has left is no
// error of it.
func (sp *StageSpan) End(r StageResult) {
	w := openSpan(sp.f.identity, kindInternal, sp.s.name, "", sp.start, time.Now())
	w.raw(sp.s.raw)
	if r.Status != 0 {
		w.number(keyStatus, r.Status)
	}
	w.flag(keyComplete, r.Complete)
	sp.s.headers.write(w, requestHeader, r.Request)
	sp.s.headers.write(w, responseHeader, r.Response)
	switch {
	case errors.Is(r.Err, context.Canceled):
		w.text(keyErrorType, errCanceled)
	case r.Err != nil:
		w.text(keyErrorType, errorType(sp.f, r.Err))
		w.failed(r.Err.Error())
	}
	sp.s.t.endSpan(w)
}
