package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// backends are the services behind the gateways: one answers, one is slow, one
// fails each tenth request, one is not there. They count what they answer, so
// that the telemetry can be held against the truth.
type backends struct {
	healthy, slow, failing *httptest.Server
	gone                   string // nobody listens there

	calls, failures map[string]*atomic.Int64 // by host:port
}

func startBackends(t *testing.T) *backends {
	t.Helper()
	b := &backends{calls: map[string]*atomic.Int64{}, failures: map[string]*atomic.Int64{}}
	server := func(h func(w http.ResponseWriter, r *http.Request, n int64)) *httptest.Server {
		var n, failed atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := &statusWriter{ResponseWriter: w, status: 200}
			h(rec, r, n.Add(1))
			if rec.status >= 500 {
				failed.Add(1)
			}
		}))
		t.Cleanup(s.Close)
		b.calls[hostOf(s.URL)], b.failures[hostOf(s.URL)] = &n, &failed
		return s
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.URL.Path, "traceparent": r.Header.Get("traceparent")})
	}
	b.healthy = server(func(w http.ResponseWriter, r *http.Request, _ int64) { answer(w, r) })
	b.slow = server(func(w http.ResponseWriter, r *http.Request, _ int64) {
		time.Sleep(20 * time.Millisecond) // the latency that is being served
		answer(w, r)
	})
	b.failing = server(func(w http.ResponseWriter, r *http.Request, n int64) {
		if n%10 == 0 {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		answer(w, r)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.gone = ln.Addr().String()
	ln.Close()
	return b
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(s int) { w.status = s; w.ResponseWriter.WriteHeader(s) }

func hostOf(url string) string { return strings.TrimPrefix(url, "http://") }

// config is a gateway configuration over the backends, all traces sampled.
func (b *backends) config() map[string]any {
	ep := func(path string, hosts ...string) map[string]any {
		var list []any
		for i, h := range hosts {
			be := map[string]any{"host": []string{"http://" + h}, "url_pattern": path}
			if len(hosts) > 1 {
				be["group"] = fmt.Sprintf("part%d", i)
			}
			list = append(list, be)
		}
		return map[string]any{"endpoint": path, "method": "GET", "timeout": "2s", "backend": list}
	}
	return map[string]any{
		"version": 3, "name": "e2e",
		"endpoints": []any{
			ep("/healthy/{id}", hostOf(b.healthy.URL)),
			ep("/slow/{id}", hostOf(b.slow.URL)),
			ep("/failing/{id}", hostOf(b.failing.URL)),
			ep("/gone/{id}", b.gone),
			ep("/merged/{id}", hostOf(b.healthy.URL), hostOf(b.slow.URL)),
		},
		"extra_config": map[string]any{
			"telemetry/opentelemetry": map[string]any{"service_name": "binnacle-gateway", "trace_sample_rate": 1},
		},
	}
}

// configWith is config with one endpoint more, on the healthy backend.
func (b *backends) configWith(path string) map[string]any {
	c := b.config()
	c["endpoints"] = append(c["endpoints"].([]any), map[string]any{
		"endpoint": path, "backend": []any{map[string]any{"host": []string{b.healthy.URL}, "url_pattern": path}},
	})
	return c
}

// sent is what the clients of the gateways saw.
type sent struct {
	mu       sync.Mutex
	byStatus map[int]int
	byNode   map[string]int
	failed   int    // transport errors
	trace    string // trace id of one answer of /merged
}

// send makes n requests, spread evenly over the nodes and the endpoints.
func send(t *testing.T, nodes []*node, n int) *sent {
	t.Helper()
	s := &sent{byStatus: map[int]int{}, byNode: map[string]int{}}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	paths := []string{"/healthy/%d", "/slow/%d", "/failing/%d", "/gone/%d", "/merged/%d"}
	jobs := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range jobs {
				target := nodes[i%len(nodes)]
				path := fmt.Sprintf(paths[(i/len(nodes))%len(paths)], i)
				resp, err := client.Get("http://" + target.addr + path)
				s.mu.Lock()
				if err != nil {
					s.failed++
					s.mu.Unlock()
					t.Logf("GET %s%s: %v", target.addr, path, err)
					continue
				}
				s.byStatus[resp.StatusCode]++
				s.byNode[target.name]++
				if tr := resp.Header.Get("traceresponse"); strings.HasPrefix(path, "/merged") && s.trace == "" {
					if parts := strings.Split(tr, "-"); len(parts) == 4 {
						s.trace = parts[1]
					}
				}
				s.mu.Unlock()
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	for i := range n {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	return s
}

// load keeps requests to good endpoints going until stop is called, over kept
// and over new connections, and counts what failed.
type load struct {
	requests, failures atomic.Int64
	firstFailure       atomic.Pointer[string]
	quit               chan struct{}
	wg                 sync.WaitGroup
}

func startLoad(nodes []*node, path string) *load {
	l := &load{quit: make(chan struct{})}
	for _, n := range nodes {
		for worker := range 6 {
			l.wg.Go(func() {
				// Half of the workers open a new connection for each request.
				client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: worker%2 == 1}}
				defer client.CloseIdleConnections()
				for {
					select {
					case <-l.quit:
						return
					default:
					}
					l.requests.Add(1)
					if err := once(client, "http://"+n.addr+path); err != nil {
						l.failures.Add(1)
						msg := n.name + ": " + err.Error()
						l.firstFailure.CompareAndSwap(nil, &msg)
					}
				}
			})
		}
	}
	return l
}

func once(c *http.Client, url string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return do(c, req)
}

// do fails unless the whole answer comes and is a 200.
func do(c *http.Client, req *http.Request) error {
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (l *load) stop() {
	close(l.quit)
	l.wg.Wait()
}
