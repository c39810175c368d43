// Command krakendotel is our gateway with krakend-otel, the telemetry of
// KrakenD CE, wired into the same engine in the place of ours: what
// `make bench-node` measures beside it. It is a module of its own, so that the
// library's dependencies are not ours.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	kotel "github.com/krakend/krakend-otel"
	kotelconfig "github.com/krakend/krakend-otel/config"
	kotelserver "github.com/krakend/krakend-otel/http/server"
	otellura "github.com/krakend/krakend-otel/lura"
	otelgin "github.com/krakend/krakend-otel/router/gin"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/logging"
	"github.com/luraproject/lura/v2/proxy"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/gateway/worker"
)

func main() {
	file := flag.String("config", "", "configuration `FILE` of the gateway, without the block of telemetry")
	sink := flag.String("sink", "", "`URL` of the OTLP receiver")
	sample := flag.Float64("sample", 1, "share of traces that is kept")
	every := flag.Duration("interval", 10*time.Second, "time between exports of metrics, in whole seconds")
	flag.Parse()
	if err := run(*file, *sink, *sample, *every); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until the process is killed, having printed its address.
func run(file, sink string, sample float64, every time.Duration) error {
	ctx := context.Background()
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := register(ctx, sink, sample, every); err != nil {
		return fmt.Errorf("start krakend-otel: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	t := worker.NewTraffic(worker.TrafficOptions{Log: slog.New(slog.DiscardHandler), Instrumentation: wired()}, []net.Listener{ln})
	if err := t.Apply(ctx, raw, api.RevisionRef{Number: 1}); err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	select {}
}

// register starts the library with the settings of a block that names an
// exporter and nothing else: all layers with their defaults. To the library a
// share of 0 is all, so that no traces means an exporter that takes none.
func register(ctx context.Context, sink string, sample float64, every time.Duration) error {
	u, err := url.Parse(sink)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return err
	}
	cfg, err := kotelconfig.FromLura(config.ServiceConfig{ExtraConfig: config.ExtraConfig{kotelconfig.Namespace: map[string]any{
		"service_name": "krakend", "trace_sample_rate": sample, "metric_reporting_period": int(every / time.Second),
		"exporters": map[string]any{"otlp": []any{map[string]any{"name": "sink", "host": u.Hostname(), "port": port, "use_http": true, "disable_traces": sample == 0}}},
	}}})
	if err != nil {
		return err
	}
	_, err = kotel.RegisterWithConfig(ctx, logging.NoOp, cfg)
	return err
}

// wired puts the library where KrakenD CE does.
func wired() *engine.Instrumentation {
	return &engine.Instrumentation{
		Handler:  func(h http.Handler) http.Handler { return kotelserver.NewTrackingHandlerWithTrustedProxies(h, nil) },
		Endpoint: otelgin.New,
		Proxy:    func(f proxy.Factory) proxy.Factory { return otellura.ProxyFactory(f) },
		Backend:  otellura.BackendFactory,
		Executor: otellura.HTTPRequestExecutorFromConfig,
	}
}
