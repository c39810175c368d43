package engine

import (
	"context"
	"net/http"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"

	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// checkTelemetry refuses telemetry blocks of an endpoint and its backends that
// cannot be.
func (b *builder) checkTelemetry(path string, e *config.EndpointConfig) {
	if _, _, err := endpointTelemetryOf(e.ExtraConfig); err != nil {
		b.fault(b.blockPath(path, byName[nsTelemetry]), "%v", err)
	}
	for _, remote := range e.Backend {
		if _, _, err := backendTelemetryOf(remote.ExtraConfig); err != nil {
			b.fault(b.blockPath(b.backendPaths[remote], byName[nsTelemetry]), "%v", err)
		}
	}
}

// endpointTelemetry is how an endpoint is measured: as its own block says, where
// it says something, else as the service's does.
func (b *builder) endpointTelemetry(e *config.EndpointConfig) endpointTelemetry {
	t, _, _ := endpointTelemetryOf(e.ExtraConfig) // see checkTelemetry
	if !t.OwnProxy {
		t.Proxy = b.told.Proxy
	}
	return t
}

// backendTelemetry is the same for a backend.
func (b *builder) backendTelemetry(remote *config.Backend) backendTelemetry {
	if t, _, _ := backendTelemetryOf(remote.ExtraConfig); t != nil { // see checkTelemetry
		return *t
	}
	return b.told.Backend
}

// endpointStages records what next makes of an endpoint as a span, where the file
// asks for it.
func (b *builder) endpointStages(next proxy.Factory) proxy.Factory {
	if b.scope == nil {
		return next
	}
	return proxy.FactoryFunc(func(e *config.EndpointConfig) (proxy.Proxy, error) {
		p, err := next.New(e)
		o := b.endpointTelemetry(e).Proxy
		if err != nil || o == nil {
			return p, err
		}
		route := b.route(e.Method, e.Endpoint, telemetry.StaticAttributes{})
		return staged(b.scope.NewStage("proxy", "proxy "+route.Template, route, *o), p), nil
	})
}

// backendStages records what next makes of a backend as a span, where the file
// asks for it.
func (b *builder) backendStages(next proxy.BackendFactory) proxy.BackendFactory {
	if b.scope == nil {
		return next
	}
	return func(remote *config.Backend) proxy.Proxy {
		p := next(remote)
		o := b.backendTelemetry(remote).Stage
		if o == nil {
			return p
		}
		return staged(b.scope.NewStage("backend", "backend "+backendTemplate(remote.URLPattern), b.backendRoute(remote), *o), p)
	}
}

// staged records p as a stage. That of a no-op endpoint ends with the header of
// the answer: its body is copied to the client later.
func staged(stage *telemetry.Stage, p proxy.Proxy) proxy.Proxy {
	return func(ctx context.Context, r *proxy.Request) (*proxy.Response, error) {
		ctx, span := stage.Begin(ctx)
		if span == nil {
			return p(ctx, r)
		}
		resp, err := p(ctx, r)
		result := telemetry.StageResult{Err: err, Request: http.Header(r.Headers)}
		if resp != nil {
			result.Status, result.Complete, result.Response = resp.Metadata.StatusCode, resp.IsComplete, http.Header(resp.Metadata.Headers)
		}
		span.End(result)
		return resp, err
	}
}
