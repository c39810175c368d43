package engine

import (
	"context"
	"io"
	"net/http"
	"regexp"

	"github.com/gin-gonic/gin"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/encoding"
	"github.com/luraproject/lura/v2/proxy"
	"github.com/luraproject/lura/v2/transport/http/client"

	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// maxDrainBytes is how much of a refused answer is read so that its connection
// can be used again.
const maxDrainBytes = 64 << 10

// proxyFactory builds the stack of one endpoint: balancing, filters, merging,
// static answers, shadowing, around it validation and, outermost, the script.
// Each backend in it has its script, rate limit and circuit breaker, outermost.
func (b *builder) proxyFactory() proxy.Factory {
	backends := b.backendStages(b.backendLimits(b.luaBackend(b.backendFactory)))
	if b.other != nil {
		backends = b.other.Backend(backends)
	}
	factory := proxy.NewShadowFactory(
		proxy.NewDefaultFactoryWithSubscriber(backends, b.lura, b.subscriber))
	factory = b.endpointStages(b.luaEndpointProxy(b.validated(factory)))
	if b.other != nil {
		factory = b.other.Proxy(factory)
	}
	return factory
}

// detached gives p a context whose values are those of the request, and not
// gin's. gin uses its context again for the next request, while things that
// read values live on: a dial that the transport began, the slower ones of
// concurrent calls, shadows. They would read another request's trace.
func detached(p proxy.Proxy) proxy.Proxy {
	return func(ctx context.Context, r *proxy.Request) (*proxy.Response, error) {
		if c, ok := ctx.Value(gin.ContextKey).(*gin.Context); ok {
			return p(telemetry.Detach(ctx, c.Request.Context(), c.Writer), r)
		}
		return p(telemetry.Detach(ctx, context.Background(), nil), r)
	}
}

// backendFactory builds the innermost proxy of one backend.
func (b *builder) backendFactory(remote *config.Backend) proxy.Proxy {
	executor := b.executor(remote)
	if remote.Encoding == encoding.NOOP {
		return proxy.NewHTTPProxyDetailed(remote, executor, client.NoOpHTTPStatusHandler, passThrough)
	}
	parser := proxy.DefaultHTTPResponseParserFactory(proxy.HTTPResponseParserConfig{
		Decoder: remote.Decoder, EntityFormatter: proxy.NewEntityFormatter(remote),
	})
	return proxy.NewHTTPProxyDetailed(remote, executor, closing(client.GetHTTPStatusHandler(remote)), parser)
}

// executor sends the requests of one backend through a client that is made
// once: Lura's default asks for one per request.
func (b *builder) executor(remote *config.Backend) client.HTTPRequestExecutor {
	c := b.client(remote)
	send := func(ctx context.Context, req *http.Request) (*http.Response, error) {
		return c.Do(req.WithContext(ctx))
	}
	if b.other != nil {
		send = b.other.Executor(func(context.Context) *http.Client { return c }, remote)
	}
	return func(ctx context.Context, req *http.Request) (*http.Response, error) {
		resp, err := send(ctx, req)
		if err == nil && ctx.Err() != nil {
			// Lura drops the answer of an ended context without closing it.
			resp.Body.Close()
			return nil, ctx.Err()
		}
		return resp, err
	}
}

func (b *builder) backendRoute(remote *config.Backend) *telemetry.Route {
	return b.route(remote.ParentEndpointMethod, remote.ParentEndpoint, telemetry.StaticAttributes{})
}

var luraParam = regexp.MustCompile(`\{\{\.([^{}]*)\}\}`)

// backendTemplate is Lura's /users/{{.Id}} as /users/{Id}.
func backendTemplate(pattern string) string { return luraParam.ReplaceAllString(pattern, "{$1}") }

// closing closes the answers that handle refuses. Lura leaves them open, so
// that each costs a connection.
func closing(handle client.HTTPStatusHandler) client.HTTPStatusHandler {
	return func(ctx context.Context, resp *http.Response) (*http.Response, error) {
		body := resp.Body
		out, err := handle(ctx, resp)
		if err != nil {
			if n := resp.ContentLength; out == nil && n > 0 && n <= maxDrainBytes {
				_, _ = io.CopyN(io.Discard, body, n) // only to keep the connection
			}
			body.Close()
		}
		return out, err
	}
}
