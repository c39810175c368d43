package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
)

// newTraffic returns a Traffic on a free port and its base URL.
func newTraffic(t *testing.T) (*Traffic, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := NewTraffic(TrafficOptions{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, []net.Listener{ln})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		tr.Stop(ctx)
	})
	return tr, "http://" + ln.Addr().String()
}

func config(backend, path, more string) []byte {
	return fmt.Appendf(nil, `{ "version": 3, "port": 8080%s, "endpoints": [ { "endpoint": "/which", "output_encoding": "no-op",
  "backend": [ { "host": [%q], "url_pattern": %q, "encoding": "no-op" } ] } ] }`, more, backend, path)
}

func get(t *testing.T, url string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTraffic(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	defer backend.Close()
	tr, url := newTraffic(t)
	ctx := t.Context()
	ref := func(n binnacle.Revision) api.RevisionRef { return api.RevisionRef{Number: n, SHA256: n.String()} }

	if err := tr.Probe(ctx); err == nil || tr.Status().Serving {
		t.Errorf("before the first apply: probe %v, status %+v; want that nothing serves", err, tr.Status())
	}
	if err := tr.Apply(ctx, []byte(`{"version": 3,`), ref(1)); !control.HasCode(err, control.CodeRefused) {
		t.Errorf("broken first configuration: got %v; want code %s", err, control.CodeRefused)
	}
	if err := tr.Apply(ctx, config(backend.URL, "/one", ""), ref(2)); err != nil {
		t.Fatal(err)
	}
	if got := get(t, url+"/which"); got != "/one" {
		t.Errorf("got %q; want /one", got)
	}
	if err := tr.Probe(ctx); err != nil {
		t.Errorf("probe: %v", err)
	}
	if err := tr.Apply(ctx, []byte(`{"version": 2}`), ref(3)); !control.HasCode(err, control.CodeRefused) {
		t.Errorf("version 2: got %v; want code %s", err, control.CodeRefused)
	}
	if err := tr.Apply(ctx, config(backend.URL, "/two", `, "idle_timeout": "3s"`), ref(4)); !control.HasCode(err, control.CodeRestart) || !strings.Contains(err.Error(), "idle_timeout") {
		t.Errorf("another server setting: got %v; want code %s and the key's name", err, control.CodeRestart)
	}
	if err := tr.Apply(ctx, config(backend.URL, "/two", `, "extra_config": {"telemetry/opentelemetry": {"service_name": "shop"}}`), ref(4)); !control.HasCode(err, control.CodeRestart) {
		t.Errorf("another service name: got %v; want code %s", err, control.CodeRestart)
	}
	if s := tr.Status(); s.Current == nil || *s.Current != ref(2) || !s.Serving {
		t.Errorf("after refusals: got %+v; want revision 2", s)
	}

	tr.SetDraining(true)
	if err := tr.Probe(ctx); err != nil {
		t.Errorf("probe while draining: %v", err)
	}
	if got := get(t, url+"/which"); got != "/one" {
		t.Errorf("while draining: got %q; want /one", got)
	}
	tr.SetDraining(false)

	if err := tr.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := tr.Stop(ctx); err != nil {
		t.Errorf("stop again: %v", err)
	}
	if err := tr.Apply(ctx, config(backend.URL, "/one", ""), ref(5)); !errors.Is(err, ErrStopping) {
		t.Errorf("apply after stop: got %v; want ErrStopping", err)
	}
	if _, err := http.Get(url + "/which"); err == nil {
		t.Error("the port is open after stop")
	}
}

func TestStopBeforeTheFirstApply(t *testing.T) {
	tr, _ := newTraffic(t)
	if err := tr.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLaunchFromEnv(t *testing.T) {
	if _, err := LaunchFromEnv(); err == nil || !strings.Contains(err.Error(), "run -c FILE") {
		t.Errorf("without an agent: got %v; want what to use instead", err)
	}
	t.Setenv(control.WorkerEnv, "{")
	if _, err := LaunchFromEnv(); err == nil {
		t.Error("broken: got no error")
	}
	t.Setenv(control.WorkerEnv, `{"files": ["control"], "relay": "http://127.0.0.1:1"}`)
	l, err := LaunchFromEnv()
	if err != nil || l.Relay != "http://127.0.0.1:1" {
		t.Errorf("got %+v, %v", l, err)
	}
}
