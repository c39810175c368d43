package agent

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent/relay"
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

	var sent takenExports
	before := relayTo(t, &sent)
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
	p.relay.Close() // what a dead agent leaves: nobody listens there
	p.release()
	resp, err := http.Get("http://" + ln.Addr().String() + "/a")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()

	after := relayTo(t, &sent)
	found := leftBehind(t.Context(), s, after, log)
	if len(found) != 1 || found[0].pid != p.pid || found[0].relay == nil || found[0].relay.URL != p.relay.URL {
		t.Fatalf("found %+v; want worker %d and its way in for telemetry, %s", found, p.pid, p.relay.URL)
	}
	if err := found[0].stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	found[0].release()
	if err := after.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sent.all(); !slices.Contains(got, "/v1/metrics 7") {
		t.Errorf("the next agent got %q; want the metrics of revision 7", got)
	}
	<-p.exited
}

// takenExports is a manager that takes every export and notes its path and revision.
type takenExports struct {
	mu  sync.Mutex
	got []string
}

func (s *takenExports) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) > 0 {
		s.got = append(s.got, r.URL.Path+" "+r.Header.Get(binnacle.HeaderRevision))
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func (s *takenExports) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func relayTo(t *testing.T, m *takenExports) *relay.Relay {
	t.Helper()
	return relay.New(relay.Options{
		Dir: t.TempDir(), QueueBytes: relay.MaxQueueBytes, SpoolBytes: relay.MaxSpoolBytes,
		Manager: func() (http.RoundTripper, string) { return m, "https://m" },
		Failed:  func() {}, Node: func() binnacle.NodeID { return "n-1" },
		Pause:   func(int) time.Duration { return time.Second },
		Metrics: metrics.NewSet(), Log: testLog(t),
	})
}

// TestChildrenOfADeadProgram: when a program and its agent die together, children
// of the program that hold its port must not be in the way of the next one; what
// else is in a group of that number stays.
func TestChildrenOfADeadProgram(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & echo $!; tail -f /dev/null >/dev/null & echo $!")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	t.Cleanup(func() { syscall.Kill(-group, syscall.SIGKILL) })
	var child, other int
	if _, err := fmt.Fscan(out, &child, &other); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	runs := func(pid int) bool {
		_, err := startTime(pid)
		return err == nil
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the child to be what it is to be", func() bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		return err == nil && filepath.Base(exe) == filepath.Base(sleep)
	})
	pr := &program{Program: Program{Command: []string{"sleep"}}, log: testLog(t)}
	pr.clearGroup(group)
	waitFor(t, "the child to end", func() bool { return !runs(child) })
	if !runs(other) {
		t.Error("another program in the group was ended as well")
	}
}
