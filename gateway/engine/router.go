package engine

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	rss "github.com/krakend/krakend-rss/v2"
	xml "github.com/krakend/krakend-xml/v2"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/core"
	"github.com/luraproject/lura/v2/encoding"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
	"github.com/luraproject/lura/v2/transport/http/server"

	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// newRouter builds the gin engine with all endpoints. It does what Lura's own
// router does, but strictly (what Lura answers with 500 or leaves out is a
// fault) and without its process-wide state. What belongs to the service as a
// whole comes after the health page, as in KrakenD, which load balancers so
// reach whatever a file says.
func (b *builder) newRouter() *gin.Engine {
	r := gin.New()
	r.RedirectTrailingSlash = !b.router.DisableRedirectTrailingSlash
	r.RedirectFixedPath = !b.router.DisableRedirectFixedPath
	r.HandleMethodNotAllowed = !b.router.DisableHandleMethodNotAllowed
	r.ContextWithFallback = true // endpoints run under the request's context
	r.AppEngine = b.router.AppEngine
	r.MaxMultipartMemory = b.router.MaxMultipartMemory
	r.RemoveExtraSlash = b.router.RemoveExtraSlash
	if f := b.router.ForwardedByClientIP; f != nil {
		r.ForwardedByClientIP = *f
	}
	if hs := b.router.RemoteIPHeaders; len(hs) > 0 {
		r.RemoteIPHeaders = nil
		for _, h := range hs {
			r.RemoteIPHeaders = append(r.RemoteIPHeaders, textproto.CanonicalMIMEHeaderKey(h))
		}
	}
	if ps := b.router.TrustedProxies; len(ps) > 0 {
		if err := r.SetTrustedProxies(ps); err != nil {
			b.fault("/extra_config/router/trusted_proxies", "%v", err)
		}
	}
	if w := b.accessWriter(); w != nil && !b.router.DisableAccessLog {
		r.Use(gin.LoggerWithConfig(gin.LoggerConfig{Output: w, SkipPaths: b.router.LoggerSkipPaths}))
	}
	r.Use(b.recovery)
	if !b.router.DisablePathDecoding {
		r.Use(checkParams)
	}
	r.NoRoute(unmatched(http.StatusNotFound, b.router.ErrorBody.NotFound))
	r.NoMethod(unmatched(http.StatusMethodNotAllowed, b.router.ErrorBody.MethodNotAllowed))
	if !b.router.DisableHealth {
		b.gen.health = b.router.healthPath()
		b.register("/extra_config/router/health_path", "the health page", func() { r.GET(b.router.healthPath(), b.health) })
	}
	b.secure(r)
	b.luaService(r)
	if h := b.botDetector("", b.cfg.ExtraConfig); h != nil {
		r.Use(h)
	}
	if b.cfg.Debug {
		r.Any("/__debug/*param", luragin.DebugHandler(b.lura))
	}
	if b.cfg.Echo {
		r.Any("/__echo/*param", luragin.EchoHandler())
	}
	b.endpoints(r)
	return r
}

// outer wraps the router, or what stands before it, in what comes before
// routing, innermost first.
func (b *builder) outer() func(http.Handler) http.Handler {
	cors := b.crossOrigin()
	return func(h http.Handler) http.Handler {
		if cors != nil {
			h = cors(h)
		}
		if b.router.HideVersionHeader {
			h = hideVersion(h)
		}
		if b.other != nil {
			h = b.other.Handler(h)
		}
		if b.scope != nil {
			h = b.scope.Handler(h)
		}
		return h
	}
}

// endpoints registers all endpoints, and OPTIONS for their paths when the
// router block says auto_options.
func (b *builder) endpoints(r *gin.Engine) {
	proxies := b.proxyFactory()
	methods := map[string][]string{}
	for _, e := range b.cfg.Endpoints {
		path := b.endpointPaths[e]
		b.checkEndpoint(path, e)
		method := strings.ToUpper(e.Method)
		b.register(path, method+" "+template(e.Endpoint), func() {
			p, err := proxies.New(e)
			if err != nil {
				b.fault(path, "%s %s: %v", method, template(e.Endpoint), err)
				return
			}
			r.Handle(method, e.Endpoint, b.endpointHandlers(path, e, p)...)
			methods[e.Endpoint] = append(methods[e.Endpoint], method)
		})
		b.luraErrors(path)
	}
	if !b.router.AutoOptions {
		return
	}
	for path, ms := range methods {
		slices.Sort(ms)
		allow := strings.Join(ms, ", ")
		b.register("/extra_config/router/auto_options", "OPTIONS "+template(path), func() {
			r.OPTIONS(path, func(c *gin.Context) {
				c.Header("Allow", allow)
				c.Header(core.KrakendHeaderName, core.KrakendHeaderValue)
			})
		})
	}
}

// register runs f, which adds routes for what is at path; gin panics on
// conflicts, and Lura and its modules on some blocks.
func (b *builder) register(path, what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			b.fault(path, "%s: %s", what, panicText(r))
		}
	}()
	f()
}

// checkEndpoint finds what Lura would accept and then fail each request with.
func (b *builder) checkEndpoint(path string, e *config.EndpointConfig) {
	switch strings.ToUpper(e.Method) {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		b.fault(path+"/method", "method %q is not supported; use GET, POST, PUT, PATCH or DELETE", e.Method)
	}
	b.namespaces(path, atEndpoint, e.ExtraConfig)
	b.checkTelemetry(path, e)
	for j, be := range e.Backend {
		at := fmt.Sprintf("%s/backend/%d", path, j)
		b.namespaces(at, atBackend, be.ExtraConfig)
		if len(be.Host) == 0 {
			b.fault(at, "the backend has no host; set host here or for the whole service")
		}
		switch be.SD {
		case "", "static", "dns":
		default:
			b.fault(at+"/sd", "service discovery %q is not supported; use static or dns", be.SD)
		}
		switch strings.ToLower(be.Encoding) {
		case "", encoding.JSON, encoding.STRING, encoding.NOOP, "safejson", "fast-json", xml.Name, rss.Name:
		default:
			b.fault(at+"/encoding", "encoding %q is not supported in this version", be.Encoding)
		}
	}
}

// endpointHandlers returns the chain of one endpoint: bots out, then, each
// around the next, token validation, script, rate limits, and the handler that
// calls the proxy or, for signed answers, its stand-in.
func (b *builder) endpointHandlers(path string, e *config.EndpointConfig, p proxy.Proxy) []gin.HandlerFunc {
	var chain []gin.HandlerFunc
	if b.scope != nil {
		route := b.route(e.Method, e.Endpoint, b.endpointTelemetry(e).Static)
		chain = append(chain, func(c *gin.Context) { route.Enter(c.Writer) })
	}
	if b.router.ReturnErrorMsg {
		chain = append(chain, writeErrors)
	}
	if h := b.botDetector(path, e.ExtraConfig); h != nil {
		chain = append(chain, h)
	}
	plain := luragin.CustomErrorEndpointHandler(b.lura, server.DefaultToHTTPError)
	var factory luragin.HandlerFactory = func(e *config.EndpointConfig, p proxy.Proxy) gin.HandlerFunc {
		if h, ok := b.signed(path, e, p); ok {
			return h
		}
		return plain(e, p)
	}
	factory = b.routerLimit(path, factory)
	factory = b.luaHandler(path, factory)
	factory = b.validator(path, factory)
	if b.other != nil {
		factory = b.other.Endpoint(factory)
	}
	return append(chain, factory(e, detached(p)))
}

// route returns the instruments of an endpoint.
func (b *builder) route(method, ginPath string, own telemetry.StaticAttributes) *telemetry.Route {
	return b.scope.NewRoute(strings.ToUpper(method), template(ginPath), own)
}

// unmatched answers what no endpoint is for; body is error_body, or nil for
// gin's own words.
func unmatched(status int, body any) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Header(core.KrakendHeaderName, core.KrakendHeaderValue)
		c.Header(server.CompleteResponseHeaderName, server.HeaderIncompleteResponseValue)
		if body != nil {
			c.JSON(status, body)
		}
	}
}

// writeErrors is return_error_msg: a request that failed without an answer is
// answered with its errors. Lura does the same by a process-wide switch.
func writeErrors(c *gin.Context) {
	c.Next()
	if c.Writer.Written() || len(c.Errors) == 0 {
		return
	}
	if len(c.Errors) == 1 {
		luragin.ErrorResponseWriter(c, c.Errors[0].Err)
		return
	}
	texts := make([]string, len(c.Errors))
	for i, e := range c.Errors {
		texts[i] = e.Error()
	}
	_, _ = c.Writer.WriteString(strings.Join(texts, "\n")) // the client may be gone
}

// health answers as KrakenD does, and 503 while the node drains, so that load
// balancers notice.
func (b *builder) health(c *gin.Context) {
	if b.draining != nil && b.draining.Load() {
		c.JSON(http.StatusServiceUnavailable, gin.H{"status": "draining"})
		return
	}
	c.JSON(http.StatusOK, gin.H{"status": "ok", "agents": map[string]string{}, "now": time.Now().String()})
}

// recovery turns a panic of one request into a 500 and a log entry.
func (b *builder) recovery(c *gin.Context) {
	defer func() {
		r := recover()
		switch {
		case r == nil:
			return
		case r == http.ErrAbortHandler: //nolint:errorlint // compared as net/http does
			panic(r)
		}
		b.log.Error("a request panicked", "method", c.Request.Method, "path", c.Request.URL.Path, "panic", r, "stack", string(debug.Stack()))
		c.AbortWithStatus(http.StatusInternalServerError)
	}()
	c.Next()
}

// checkParams refuses path parameters that are still encoded once decoded:
// they would mean another path to the backend.
//
// Source: luraproject lura, router/gin/engine.go, paramChecker.
func checkParams(c *gin.Context) {
	for _, p := range c.Params {
		s, err := url.PathUnescape(p.Value)
		if err == nil && s == p.Value && !strings.ContainsAny(s, "?#") {
			continue
		}
		if err == nil {
			err = fmt.Errorf("encoded url params")
		}
		c.Status(http.StatusBadRequest)
		luragin.ErrorResponseWriter(c, fmt.Errorf("error: %w", err))
		c.Abort()
		return
	}
}

// hideVersion is hide_version_header.
func hideVersion(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&versionHider{w}, r)
	})
}

type versionHider struct{ http.ResponseWriter }

// Unwrap serves http.ResponseController.
func (w *versionHider) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader hides the version just before the header goes out; gin always
// calls it.
func (w *versionHider) WriteHeader(code int) {
	if h := w.Header(); h.Get(core.KrakendHeaderName) != "" {
		h.Set(core.KrakendHeaderName, "Version undefined")
	}
	w.ResponseWriter.WriteHeader(code)
}

// Flush, Hijack and CloseNotify exist because gin asserts them.
func (w *versionHider) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *versionHider) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *versionHider) CloseNotify() <-chan bool {
	if n, ok := w.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // see above
		return n.CloseNotify()
	}
	return make(chan bool)
}
