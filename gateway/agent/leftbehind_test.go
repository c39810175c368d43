package agent

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// TestTelemetryOfAWorkerLeftBehind lets a worker outlive its agent, serve
// meanwhile, and be found by the next agent: what it counted arrives there, under
// the revision that it runs.
func TestTelemetryOfAWorkerLeftBehind(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	defer backend.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := testLog(t)
	s, err := openState(t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()

	before, _ := testRelay(t, maxQueueBytes, nil)
	l := &launcher{state: s, relay: before, log: log, command: []string{exe}, logFormat: "text", logLevel: "INFO"}
	p, err := l.launch(t.Context(), []net.Listener{ln}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	config := fmt.Appendf(nil, `{"version": 3, "endpoints": [{"endpoint": "/a", "backend": [{"host": [%q], "url_pattern": "/"}]}]}`, backend.URL)
	if err := p.apply(t.Context(), api.RevisionRef{Number: 7, SHA256: hashOf(config)}, config); err != nil {
		t.Fatal(err)
	}
	p.relay.close() // what a dead agent leaves: nobody listens there
	p.release()
	resp, err := http.Get("http://" + ln.Addr().String() + "/a")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()

	after, _ := testRelay(t, maxQueueBytes, nil)
	found := leftBehind(t.Context(), s, after, log)
	if len(found) != 1 || found[0].pid != p.pid || found[0].relay == nil || found[0].relay.URL != p.relay.URL {
		t.Fatalf("found %+v; want worker %d and its way in for telemetry, %s", found, p.pid, p.relay.URL)
	}
	if err := found[0].stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	found[0].release()
	e, _, ok, _ := after.queue.oldest()
	if !ok || e.path != "/v1/metrics" || e.revision != "7" || len(e.body) == 0 {
		t.Errorf("the next agent got %v %q of revision %q, %d bytes; want the metrics of revision 7", ok, e.path, e.revision, len(e.body))
	}
	<-p.exited
}
