package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// envRole makes the test binary one of the processes that TestNodeCPU measures
// or needs.
const envRole = "BINNACLE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		var o roleOptions
		err := json.Unmarshal([]byte(role), &o)
		if err == nil {
			err = o.run()
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// roleOptions say what a process is to be.
type roleOptions struct {
	// Mode is backend, sink, proxy (the standard library's), off (telemetry),
	// metrics, ten, all.
	Mode string
	// Program is started in the place of this one, with Mode's configuration:
	// the engine with another library's telemetry, see bench/krakendotel.
	Program  string
	GOGC     int // 0 is the default of the runtime
	Backend  string
	Sink     string
	Interval time.Duration
}

// document is what the backend answers, of the size of a usual JSON answer.
var document = fmt.Appendf(nil, `{"id": 7, "text": %q}`, strings.Repeat("binnacle ", 46))

// run serves until the process is killed, having printed its address.
func (o roleOptions) run() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if o.GOGC > 0 {
		debug.SetGCPercent(o.GOGC)
	}
	ready := func() { fmt.Println(ln.Addr()) }
	switch o.Mode {
	case "backend":
		ready()
		return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(document)
		}))
	case "sink":
		ready()
		return http.Serve(ln, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	}
	if o.Mode == "proxy" {
		u, err := url.Parse(o.Backend)
		if err != nil {
			return err
		}
		p := httputil.NewSingleHostReverseProxy(u)
		p.Transport = &http.Transport{MaxIdleConnsPerHost: 250}
		ready()
		return http.Serve(ln, p)
	}
	to := TrafficOptions{Log: slog.New(slog.DiscardHandler)}
	if r, ok := sampled[o.Mode]; ok {
		to.Telemetry = &telemetry.Options{Endpoint: o.Sink, Managed: true, Interval: o.Interval, SampleRatio: r}
	}
	t := NewTraffic(to, []net.Listener{ln})
	if err := t.Apply(context.Background(), o.configuration(), api.RevisionRef{Number: 1}); err != nil {
		return err
	}
	ready()
	select {}
}

// sampled is the share of traces by mode.
var sampled = map[string]float64{"metrics": 0, "ten": 0.1, "all": 1}

// configuration is the gateway's: one endpoint that changes nothing.
func (o roleOptions) configuration() []byte {
	return fmt.Appendf(nil, `{ "version": 3, "port": 8080, "timeout": "10s",
  "extra_config": {"router": {"disable_access_log": true}, "telemetry/opentelemetry": {"trace_sample_rate": %v}},
  "endpoints": [ { "endpoint": "/doc/{id}", "output_encoding": "no-op", "backend": [ { "host": [%q], "url_pattern": "/{id}", "encoding": "no-op" } ] } ] }`,
		sampled[o.Mode], o.Backend)
}

// command starts this test's binary in the role, or the other program.
func (o roleOptions) command(t *testing.T) *exec.Cmd {
	t.Helper()
	if o.Program == "" {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envRole+"="+string(b))
		return cmd
	}
	file := filepath.Join(t.TempDir(), "krakend.json")
	if err := os.WriteFile(file, o.configuration(), 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.Command(o.Program, "-config", file, "-sink", o.Sink, "-interval", o.Interval.String(), "-sample", fmt.Sprint(sampled[o.Mode]))
}

// role is a process in a role.
type role struct {
	url string
	cmd *exec.Cmd
}

func startRole(t *testing.T, o roleOptions) role {
	t.Helper()
	cmd := o.command(t)
	cmd.Stderr = os.Stderr
	if o.GOGC > 0 {
		cmd.Env = append(cmd.Environ(), fmt.Sprint("GOGC=", o.GOGC)) // for programs that are not this one, too
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() //nolint:errcheck // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the %s process does not start: %v", o.Mode, err)
	}
	return role{"http://" + strings.TrimSpace(line), cmd}
}

// cpu is the time that the process has been on a processor: of all its threads,
// in the nanoseconds of the scheduler rather than the ticks of utime.
func (r role) cpu(t *testing.T) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", r.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		t.Skipf("this system does not tell the time of threads: %v", err)
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(b) + " ")[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// ask sends requests on conns kept connections for d, and returns how many.
func ask(t *testing.T, url string, conns int, d time.Duration) int {
	tr := &http.Transport{MaxIdleConnsPerHost: conns}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	var sent atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for i := range conns {
		wg.Go(func() {
			for time.Now().Before(end) {
				resp, err := c.Get(url + "/doc/" + strconv.Itoa(i))
				if err != nil {
					t.Errorf("GET: %v", err)
					return
				}
				n, _ := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK || n != int64(len(document)) {
					t.Errorf("GET: %s, %d bytes", resp.Status, n)
					return
				}
				sent.Add(1)
			}
		})
	}
	wg.Wait()
	return int(sent.Load())
}

// TestNodeCPU measures what a whole gateway process costs: CPU per request
// against the same gateway with telemetry off, all the same otherwise, and
// against the standard library's reverse proxy, in interleaved rounds, so that
// what else the machine does meets all alike. `make bench-node` runs it in full,
// with krakend-otel in the same engine beside it; a test run only shows that it
// works.
func TestNodeCPU(t *testing.T) {
	cs := []contender{
		{"reverse proxy", roleOptions{Mode: "proxy"}},
		{"off", roleOptions{Mode: "off"}},
		{"metrics", roleOptions{Mode: "metrics"}},
		{"metrics, 10 % of traces", roleOptions{Mode: "ten"}},
		{"metrics, all traces", roleOptions{Mode: "all"}},
	}
	if other := os.Getenv("BINNACLE_KRAKENDOTEL"); other != "" {
		cs = append(cs,
			contender{"krakend-otel, no traces", roleOptions{Mode: "metrics", Program: other}},
			contender{"krakend-otel, 10 %", roleOptions{Mode: "ten", Program: other}},
			contender{"krakend-otel, all traces", roleOptions{Mode: "all", Program: other}},
		)
	}
	for i := range cs { // as gateways run, see TuneMemory; at 100 the figures are those of a heap of 4 MiB
		cs[i].GOGC = 400
	}
	compareCPU(t, "off", cs)
}

// TestNodeGC measures what the garbage collector's pace costs, with telemetry as
// nodes have it. `make bench-gc` runs it in full.
func TestNodeGC(t *testing.T) {
	var cs []contender
	for _, percent := range []int{100, 200, 400, 800} {
		cs = append(cs, contender{fmt.Sprint("GOGC=", percent), roleOptions{Mode: "ten", GOGC: percent}})
	}
	compareCPU(t, "GOGC=100", cs)
}

// fullLoad makes the comparisons as long as figures need.
var fullLoad = os.Getenv("BINNACLE_LOAD") == "full"

// contender is one of the processes compared.
type contender struct {
	name string
	roleOptions
}

// compareCPU prints the CPU per request of each, and its ratio to base's, round
// by round.
func compareCPU(t *testing.T, base string, cs []contender) {
	rounds, window, warm := 1, 200*time.Millisecond, 50*time.Millisecond
	if fullLoad {
		// Each window has one export of metrics in it, which in production is
		// one in two.
		rounds, window, warm = 12, 2*time.Second, time.Second
	}
	backend := startRole(t, roleOptions{Mode: "backend"})
	sink := startRole(t, roleOptions{Mode: "sink"})
	procs := map[string]role{}
	for _, c := range cs {
		c.Backend, c.Sink, c.Interval = backend.url, sink.url, window
		procs[c.name] = startRole(t, c.roleOptions)
		ask(t, procs[c.name].url, 16, warm)
	}
	perRequest := map[string][]float64{} // microseconds
	for range rounds {
		order := slices.Clone(cs)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, c := range order {
			p := procs[c.name]
			before := p.cpu(t)
			n := ask(t, p.url, 16, window)
			if n == 0 {
				t.Fatalf("%s: no request was answered", c.name)
			}
			used := p.cpu(t) - before
			perRequest[c.name] = append(perRequest[c.name], float64(used.Nanoseconds())/1000/float64(n))
		}
	}
	t.Logf("%-26s %12s %28s %10s", "", "us/request", "against "+base+", pair by pair", "MiB")
	for _, c := range cs {
		var ratios []float64
		for i, v := range perRequest[c.name] {
			ratios = append(ratios, v/perRequest[base][i])
		}
		mid, low, high := median(ratios)
		us, _, _ := median(perRequest[c.name])
		t.Logf("%-26s %12.1f %12.3f (%.3f to %.3f) %10d", c.name, us, mid, low, high, procs[c.name].resident(t))
	}
}

// resident is the most memory that the process had, in MiB.
func (r role) resident(t *testing.T) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	t.Skip("this system does not tell the memory of processes")
	return 0
}

// median returns the median and an interval for it with at least 95 %
// confidence, by order statistics: below six values all of them.
func median(values []float64) (mid, low, high float64) {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	mid = (v[(n-1)/2] + v[n/2]) / 2
	// The interval from the k-th lowest to the k-th highest misses the median
	// with 2 P(B(n, 1/2) < k).
	k, tail, p := 0, 0.0, 1.0
	for range n {
		p /= 2
	}
	for i, choose := 0, 1.0; i < n/2; i++ {
		tail += choose * p
		if 2*tail > 0.05 {
			break
		}
		k = i + 1
		choose = choose * float64(n-i) / float64(i+1)
	}
	k = max(k, 1)
	return mid, v[k-1], v[n-k]
}

func TestMedian(t *testing.T) {
	f := func(n int, wantLow, wantHigh float64) {
		t.Helper()
		var v []float64
		for i := range n {
			v = append(v, float64(i+1))
		}
		mid, low, high := median(v)
		if mid != float64(n+1)/2 || low != wantLow || high != wantHigh {
			t.Errorf("median of 1…%d: got %v (%v to %v); want %v to %v", n, mid, low, high, wantLow, wantHigh)
		}
	}
	// Source: tables of the binomial distribution.
	f(1, 1, 1)
	f(10, 2, 9)
	f(12, 3, 10)
	f(20, 6, 15)
}
