package engine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gin-gonic/gin"
	revokerconfig "github.com/krakend/bloomfilter/v2/krakend"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/core"
	"github.com/luraproject/lura/v2/transport/http/server"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// setUpLura sets, once and before the first build, what Lura and gin keep per
// process. No configuration changes it later, so that generations share no
// mutable state; what KrakenD would change here is done per generation.
var setUpLura = sync.OnceFunc(func() {
	gin.SetMode(gin.ReleaseMode)
	core.KrakendHeaderValue = "Version " + binnacle.Version
	core.KrakendUserAgent = "Binnacle Version " + binnacle.Version
	server.UserAgentHeaderValue = []string{core.KrakendUserAgent}
	if err := registerEncodings(); err != nil {
		panic(fmt.Sprintf("BUG: register the encodings: %v", err)) // it says no such thing
	}
})

// buildMu makes builds serial: some krakend modules write process-wide maps
// while they are built.
var buildMu sync.Mutex

// buildOptions are what a build needs of the engine around it.
type buildOptions struct {
	log       *slog.Logger
	telemetry *telemetry.Telemetry
	other     *Instrumentation // nil is none
	accessLog io.Writer
	draining  *atomic.Bool
	ref       api.RevisionRef
	// shared is what generations hand on to each other; nil when dry.
	shared *handedOn
	// dry builds for a check: nothing is looked up on the network.
	dry bool
}

// handedOn is what outlives a generation when its successor wants the same.
type handedOn struct {
	revokers shared[*revoker]
	logs     shared[*logSink]
}

// builder holds what the parts of one build share.
type builder struct {
	buildOptions
	ctx       context.Context // ends with the generation
	cfg       config.ServiceConfig
	router    routerConfig
	lura      *luraLog
	gen       *generation
	transport *http.Transport
	scope     *telemetry.Scope // nil when telemetry is off
	told      TelemetrySettings
	rejecter  *revokerconfig.Rejecter
	// Where endpoints and backends stand in the file.
	endpointPaths map[*config.EndpointConfig]string
	backendPaths  map[*config.Backend]string

	faults []api.Fault
	pos    positions
}

// build turns raw into a generation with one reference, the caller's, or
// returns a *BuildError with every fault. When ctx ends first, the build is
// abandoned, and cleans up after itself whenever it comes back.
func build(ctx context.Context, raw []byte, o buildOptions) (*generation, error) {
	setUpLura()
	type result struct {
		g   *generation
		err error
	}
	done := make(chan result, 1)
	go func() {
		buildMu.Lock()
		defer buildMu.Unlock()
		if ctx.Err() != nil { // waited too long for the build before
			done <- result{err: ctx.Err()}
			return
		}
		g, err := buildNow(raw, o)
		if err == nil && ctx.Err() != nil {
			g.release()
			g, err = nil, ctx.Err()
		}
		done <- result{g, err}
	}()
	select {
	case r := <-done:
		return r.g, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.g != nil {
				r.g.release()
			}
		}()
		return nil, fmt.Errorf("the build did not end in time: %w", ctx.Err())
	}
}

// buildNow is the one straight story of a build.
func buildNow(raw []byte, o buildOptions) (g *generation, err error) {
	cfg, faults := parse(raw)
	if len(faults) > 0 {
		return nil, &BuildError{faults}
	}
	b := &builder{
		buildOptions: o, cfg: cfg, pos: locate(raw), gen: newGeneration(),
		lura: &luraLog{log: o.log.With("source", "lura"), building: true},
	}
	b.gen.lura = b.lura
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithCancel(context.Background())
	b.gen.onRelease(cancel)
	defer func() {
		if r := recover(); r != nil {
			o.log.Error("building a configuration panicked", "panic", r, "stack", string(debug.Stack()))
			b.fault("", "the build panicked: %v", panicText(r))
		}
		b.lura.built()
		if len(b.faults) > 0 {
			b.gen.release()
			g, err = nil, &BuildError{b.faults}
		}
	}()

	b.locate()
	b.settings()
	b.transport = server.NewTransport(cfg, b.lura)
	b.gen.onRelease(b.transport.CloseIdleConnections)
	if errs := b.lura.take(); !b.dry { // the files are the node's
		for _, e := range errs {
			b.fault("/client_tls", "%s", e)
		}
	}
	b.gen.router, b.gen.outer = b.newRouter(), b.outer()
	return b.gen, nil
}

func panicText(r any) string {
	if f, ok := r.(fatal); ok {
		return f.message
	}
	return fmt.Sprint(r)
}

// locate notes where endpoints and backends stand in the file.
func (b *builder) locate() {
	b.endpointPaths, b.backendPaths = map[*config.EndpointConfig]string{}, map[*config.Backend]string{}
	for i, e := range b.cfg.Endpoints {
		b.endpointPaths[e] = fmt.Sprintf("/endpoints/%d", i)
		for j, remote := range e.Backend {
			b.backendPaths[remote] = fmt.Sprintf("/endpoints/%d/backend/%d", i, j)
		}
	}
}

// fault adds a reason to refuse the configuration.
func (b *builder) fault(path, format string, args ...any) {
	if len(b.faults) >= maxFaults {
		return
	}
	line, column := b.pos.lineColumn(path)
	b.faults = append(b.faults, api.Fault{Stage: stageBuild, Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// luraErrors turns what Lura logged as errors since the last call into faults.
func (b *builder) luraErrors(path string) {
	for _, e := range b.lura.take() {
		b.fault(path, "%s", e)
	}
}

// settings reads what belongs to the service as a whole.
func (b *builder) settings() {
	var err error
	if b.router, err = checkRouter(b.cfg.ExtraConfig); err != nil {
		b.fault("/extra_config/router", "%v", err)
	}
	b.gen.ref = b.ref
	b.gen.settings = settingsOf(b.cfg)
	if _, err := b.gen.settings.tlsConfig(); err != nil && !b.dry { // the files are the node's
		b.fault("/tls", "%v", err)
	}
	if len(b.cfg.AsyncAgents) > 0 {
		b.fault("/async_agent", "async agents are not supported in this version")
	}
	b.namespaces("", atService, b.cfg.ExtraConfig)
	b.gen.logging = b.loggingBlocks()
	b.sharedKeys()
	b.rejecter = b.newRejecter()

	ts, _, err := telemetrySettings(b.cfg.ExtraConfig)
	if err != nil {
		b.fault("/extra_config/"+escapePointer(nsTelemetry), "%v", err)
	}
	b.told, b.gen.sampleRatio = ts, ts.SampleRatio
	if b.telemetry != nil {
		b.scope = b.telemetry.NewScope(telemetry.ScopeOptions{
			Revision: b.ref.Number, SkipPaths: append(slices.Clip(ts.SkipPaths), b.router.healthPath()),
			Server: ts.Server, Headers: ts.ServerHeaders,
		})
	}
}

// template is an endpoint's path as KrakenD's users write it: gin's form,
// /users/:id, back to /users/{id}.
func template(ginPath string) string {
	var out strings.Builder
	for i, seg := range strings.Split(ginPath, "/") {
		if i > 0 {
			out.WriteByte('/')
		}
		if before, name, ok := strings.Cut(seg, ":"); ok && name != "" {
			out.WriteString(before + "{" + name + "}")
		} else {
			out.WriteString(seg)
		}
	}
	return out.String()
}
