package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
)

// fullLoad makes the load tests as large as issue and documents say, instead of
// as large as a test run bears: `make load-swap`, `make load-restart`.
var fullLoad = os.Getenv("BINNACLE_LOAD") == "full"

// scale picks between a full and a reduced size.
func scale(full, reduced int) int {
	if fullLoad {
		return full
	}
	return reduced
}

// traffic is load of all kinds at once: kept and new connections, GET and POST,
// some requests of 300 ms. Its clients are strict: they send nothing twice, as
// net/http's do, and a connection that ends without having said so is a loss.
type traffic struct {
	mu     sync.Mutex
	sent   int
	failed []error
	done   chan struct{}
	wg     sync.WaitGroup
}

// mixed is a configuration for traffic.
func (n *node) mixed(name string) []byte {
	ep := func(path, method, backend string) string {
		return fmt.Sprintf(`{ "endpoint": %q, "method": %q, "output_encoding": "no-op", "input_query_strings": ["*"],
      "backend": [ { "host": [%q], "url_pattern": %q, "method": %[2]q, "encoding": "no-op" } ] }`, path, method, n.backend.URL, backend)
	}
	return fmt.Appendf(nil, `{ "version": 3, "port": %d, "listen_ip": "127.0.0.1", "timeout": "5s", "name": %q, "endpoints": [ %s, %s ] }`,
		n.port, name, ep("/which", "GET", "/"+name), ep("/post", "POST", "/"+name))
}

func (n *node) startTraffic(clients int) *traffic {
	l := &traffic{done: make(chan struct{})}
	addr := fmt.Sprintf("127.0.0.1:%d", n.port)
	for i := range clients {
		req := "GET /which HTTP/1.1\r\nHost: g\r\n"
		switch i % 8 {
		case 1, 2:
			req = "POST /post HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n"
		case 3:
			req = "GET /which?wait=300ms HTTP/1.1\r\nHost: g\r\n"
		}
		fresh := i%8 >= 6
		if fresh {
			req += "Connection: close\r\n"
		}
		req += "\r\n"
		if strings.HasPrefix(req, "POST") {
			req += `{"a": 12}`
		}
		l.wg.Go(func() { l.client(addr, req) })
	}
	return l
}

// client sends req again and again, on one connection as long as it is kept.
func (l *traffic) client(addr, req string) {
	var c net.Conn
	var r *bufio.Reader
	for {
		select {
		case <-l.done:
			if c != nil {
				c.Close()
			}
			return
		default:
		}
		err := func() error {
			var err error
			if c == nil {
				if c, err = net.DialTimeout("tcp", addr, 10*time.Second); err != nil {
					return err
				}
				r = bufio.NewReader(c)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err = io.WriteString(c, req); err != nil {
				return err
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			if _, err = io.Copy(io.Discard, resp.Body); err != nil {
				return err
			}
			if resp.Close {
				c.Close()
				c = nil
			}
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("status %d", resp.StatusCode)
			}
			return nil
		}()
		l.mu.Lock()
		l.sent++
		if err != nil {
			l.failed = append(l.failed, err)
		}
		l.mu.Unlock()
		if err != nil && c != nil {
			c.Close()
			c = nil
		}
	}
}

// end stops the load and fails the test for each loss.
func (l *traffic) end(t *testing.T) (sent int) {
	t.Helper()
	close(l.done)
	l.wg.Wait()
	if len(l.failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(l.failed), l.sent, errors.Join(l.failed[:min(len(l.failed), 5)]...))
	}
	return l.sent
}

// mixedNode starts a node for traffic, a member without limits.
func mixedNode(t *testing.T, m *fakeManager, workerArgs ...string) *node {
	n := newNode(t, m)
	n.workerArgs = workerArgs
	n.write(n.file, n.mixed("own"))
	n.run()
	waitFor(t, "a lease", func() bool { return n.agent.Status().Lease.State == "valid" })
	// What the helm does after an apply, it has done when the next one is.
	for i := range 2 {
		m.applied(m.push(binnacle.Revision(i+1), n.mixed(fmt.Sprint("first", i))))
	}
	return n
}

// footprint is what a worker holds: resident memory in MiB, and goroutines.
type footprint struct{ rss, goroutines int }

func (n *node) footprint() footprint {
	n.t.Helper()
	socks, err := filepath.Glob(filepath.Join(n.state, "worker-*.sock"))
	if err != nil || len(socks) != 1 {
		n.t.Fatalf("control sockets of workers: %v, %v; want one", socks, err)
	}
	c, err := control.Dial(n.t.Context(), n.state, filepath.Base(socks[0]))
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	var st control.WorkerStatus
	if err := c.Call(n.t.Context(), control.MethodStatus, nil, &st); err != nil {
		n.t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", st.PID))
	if err != nil {
		n.t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		n.t.Fatal(err)
	}
	return footprint{pages * os.Getpagesize() >> 20, st.Goroutines}
}

// TestLoadSwap brings revision after revision to a node under load, by the
// whole way: plan, fetch, swap inside the worker, report; once as nodes are, and
// once with a worker that records no telemetry. Then come more swaps without load,
// for what each might leave behind.
func TestLoadSwap(t *testing.T) {
	t.Run("telemetry", func(t *testing.T) { loadSwap(t, true) })
	t.Run("without", func(t *testing.T) { loadSwap(t, false, silentWorker) })
}

func loadSwap(t *testing.T, telemetry bool, workerArgs ...string) {
	m := newManager(t)
	n := mixedNode(t, m, workerArgs...)
	clients, swaps := scale(200, 32), scale(100, 10)
	l := n.startTraffic(clients)
	began := time.Now()
	revision := binnacle.Revision(2)
	swap := func() {
		revision++
		m.applied(m.push(revision, n.mixed(fmt.Sprint("r", revision))))
	}
	for range swaps {
		swap()
	}
	took := time.Since(began)
	sent := l.end(t)
	t.Logf("%d swaps in %v under %d clients: %d requests, %d failed", swaps, took.Round(time.Millisecond), clients, sent, len(l.failed))
	if exported := m.count(func() int { return len(m.exports) }) > 0; exported != telemetry {
		t.Errorf("telemetry arrived: %v; want %v", exported, telemetry)
	}

	// The first hundred bring the heap to its size.
	round := scale(100, 10)
	var first footprint
	for i := range scale(6, 3) {
		for range round {
			swap()
		}
		now := n.footprint()
		t.Logf("after %d more swaps: the worker has %d MiB resident, %d goroutines", (i+1)*round, now.rss, now.goroutines)
		if i == 0 {
			first = now
			continue
		}
		if now.goroutines > first.goroutines+8 {
			t.Errorf("%d goroutines, %d after the first %d swaps: swaps leave some behind", now.goroutines, first.goroutines, round)
		}
		if now.rss > first.rss+first.rss/4+8 {
			t.Errorf("%d MiB resident, %d after the first %d swaps: swaps leave memory behind", now.rss, first.rss, round)
		}
	}
}

// TestLoadRestart orders restart after restart of a node under load: each time
// another process takes over the listening socket.
func TestLoadRestart(t *testing.T) {
	m := newManager(t)
	n := mixedNode(t, m)
	clients, restarts := scale(200, 32), scale(10, 3)
	l := n.startTraffic(clients)
	began := time.Now()
	pids := map[int]bool{n.agent.Status().Worker.PID: true}
	for i := range restarts {
		id := fmt.Sprint("order-", i)
		m.change(func(p *api.Plan) { p.Serial++; p.Restart = &api.RestartOrder{ID: id} })
		waitFor(t, id, func() bool { return m.last().RestartDone == id })
		pids[n.agent.Status().Worker.PID] = true
		time.Sleep(200 * time.Millisecond) // of load on this worker
	}
	took := time.Since(began)
	sent := l.end(t)
	t.Logf("%d restarts in %v under %d clients: %d requests, %d failed", restarts, took.Round(time.Millisecond), clients, sent, len(l.failed))
	if len(pids) != restarts+1 {
		t.Errorf("%d workers served; want %d", len(pids), restarts+1)
	}
}

// TestStopWithIdleClients ends a node whose clients keep connections.
func TestStopWithIdleClients(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	for range 20 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /which HTTP/1.1\r\nHost: g\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the stop took %v; want about two seconds", took)
	} else {
		t.Logf("the stop took %v", took.Round(time.Millisecond))
	}
}
