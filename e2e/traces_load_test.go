package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// Shape of the load: requests of 170 traces of a server span and two client
// spans, ten attributes each, as a fleet of gateways sends them.
const (
	loadTraces = 170
	loadSpans  = 3 * loadTraces
	loadNodes  = 20
)

// TestLoadTraces sends spans through the real receiving path of a real manager
// and measures what the whole process spends on them, what lies on disk, and
// how long Jaeger's queries take over them. `make bench-traces` runs it with ten
// million spans, BINNACLE_LOAD=N with N; a test run only shows that it works.
func TestLoadTraces(t *testing.T) {
	requests, rounds, templates := 40, 1, 10
	if os.Getenv("BINNACLE_LOAD") == "full" {
		requests, rounds, templates = 10_000_000/loadSpans+1, 10, 200
	}
	if n, err := strconv.Atoi(os.Getenv("BINNACLE_LOAD")); err == nil {
		requests, rounds, templates = n/loadSpans+1, max(1, n/1_000_000), 200
	}
	c := startManager(t)
	load := newTraceLoad(templates, requests)
	reader := c.token("reader.token")
	spans := 0
	var perSpan []float64 // CPU seconds per million spans, of each round
	for round := range rounds {
		from, to := requests*round/rounds, requests*(round+1)/rounds
		n := (to - from) * loadSpans
		before, began := c.manager.cpu(t), time.Now()
		load.send(t, c.otlp, from, to)
		// What is left to do of this round's spans is this round's, too.
		eventually(t, time.Minute, "all is written", func() error { return c.idleTraces(reader) })
		used := c.manager.cpu(t) - before
		perSpan = append(perSpan, used.Seconds()*1e6/float64(n))
		spans += n
		t.Logf("round %2d: %8d spans in %6.1f s, %5.2f CPU s per million", round+1, n, time.Since(began).Seconds(), perSpan[round])
	}
	mid, low, high := spread(perSpan)
	t.Logf("%-52s %8s  %s", "measured", "median", "lowest to highest")
	t.Logf("%-52s %8.2f  %.2f to %.2f", "CPU s per million spans, whole process", mid, low, high)
	t.Logf("%-52s %8.0f", "resident memory after it, MiB", float64(c.manager.rss(t))/(1<<20))
	load.measureQueries(t, c, reader, min(40, requests))
	c.manager.stop(t)
	bytes := diskUsage(t, filepath.Join(c.dir, "manager", "traces"))
	t.Logf("%-52s %8.1f", "bytes on disk per span, all files, after the stop", float64(bytes)/float64(spans))

	// It is all there: asked of the manager anew, so nothing is in memory.
	c.runManager()
	load.measureQueries(t, c, reader, min(40, requests))
}

// traceLoad makes requests out of templates, giving each ids and times of its
// own, so that the generator costs little beside what it loads.
type traceLoad struct {
	templates []traceTemplate
	requests  int
	end       time.Time // of the hour over which the spans are spread
}

// traceTemplate is an encoded request with the places to patch.
type traceTemplate struct {
	body     []byte
	traceIDs []int // offsets of 16 bytes
	times    []int // offsets of 8 bytes, nanoseconds after the request's time
}

func newTraceLoad(templates, requests int) *traceLoad {
	l := &traceLoad{requests: requests, end: time.Now()}
	r := rand.New(rand.NewPCG(4, 2))
	for i := range templates {
		l.templates = append(l.templates, newTraceTemplate(gatewaySpans(r, i%loadNodes)))
	}
	return l
}

// mark stands where a trace id or a time will be: bytes that nothing else has.
const mark = 0x5eed_0fa1_7ace_c0de

func newTraceTemplate(td ptrace.Traces) traceTemplate {
	b, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	if err != nil {
		panic(err)
	}
	var tt traceTemplate
	tt.body = b
	id := binary.BigEndian.AppendUint64(nil, mark)
	for at := 0; at+16 <= len(b); at++ {
		switch {
		case bytes.HasPrefix(b[at:], id):
			tt.traceIDs = append(tt.traceIDs, at)
		case binary.LittleEndian.Uint64(b[at:])>>40 == timeMark>>40:
			tt.times = append(tt.times, at)
		}
	}
	if len(tt.traceIDs) != loadSpans || len(tt.times) != 2*loadSpans {
		panic(fmt.Sprintf("BUG: %d ids and %d times to patch", len(tt.traceIDs), len(tt.times)))
	}
	return tt
}

// timeMark is added to times in templates, so that they are found.
const timeMark = 0x51deca << 40

// traceIDOf is the id of trace i of a request.
func traceIDOf(request, i int) pcommon.TraceID {
	var id pcommon.TraceID
	r := rand.New(rand.NewPCG(uint64(request), uint64(i)))
	binary.BigEndian.PutUint64(id[:], r.Uint64())
	binary.BigEndian.PutUint64(id[8:], r.Uint64())
	return id
}

// body returns request n in dst.
func (l *traceLoad) body(dst []byte, n int) []byte {
	tt := &l.templates[n%len(l.templates)]
	dst = append(dst[:0], tt.body...)
	at := uint64(l.at(n).UnixNano())
	for i, off := range tt.traceIDs {
		id := traceIDOf(n, i/3)
		copy(dst[off:], id[:])
	}
	for _, off := range tt.times {
		v := binary.LittleEndian.Uint64(dst[off:]) - timeMark + at
		binary.LittleEndian.PutUint64(dst[off:], v)
	}
	return dst
}

// at is the time of request n: they are spread over one hour.
func (l *traceLoad) at(n int) time.Time {
	return l.end.Add(-time.Hour + time.Duration(float64(n)/float64(l.requests)*float64(time.Hour)))
}

// send posts requests from … to over four connections.
func (l *traceLoad) send(t *testing.T, base string, from, to int) {
	t.Helper()
	next := make(chan int)
	errs := make(chan error, 4)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var buf []byte
			for n := range next {
				buf = l.body(buf, n)
				if err := postSpans(base, buf); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for n := from; n < to; n++ {
		next <- n
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
}

func postSpans(base string, body []byte) error {
	for {
		resp, err := http.Post(base+"/v1/traces", "application/x-protobuf", bytes.NewReader(body))
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusServiceUnavailable: // as an exporter does
			time.Sleep(100 * time.Millisecond)
		case resp.StatusCode != http.StatusOK || len(b) > 2: // more than an empty partial success
			return fmt.Errorf("POST /v1/traces: %s: %s", resp.Status, b)
		default:
			return nil
		}
	}
}

// gatewaySpans makes the spans of one request, times as offsets.
func gatewaySpans(r *rand.Rand, node int) ptrace.Traces {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	res := rs.Resource().Attributes()
	res.PutStr("service.name", "gateway")
	res.PutStr("service.instance.id", fmt.Sprintf("gw-%d", node))
	res.PutStr("service.version", "0.1.0")
	res.PutStr("host.name", fmt.Sprintf("gw-%d.internal", node))
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("gateway")
	var at time.Duration
	for range loadTraces {
		at += time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		method := []string{"GET", "GET", "GET", "POST"}[r.IntN(4)]
		route := fmt.Sprintf("/api/v1/resource%d/{id}", r.IntN(40))
		status := int64(200)
		if r.IntN(100) == 0 {
			status = 502
		}
		root := loadSpan(ss, r, pcommon.SpanID{}, method+" "+route, ptrace.SpanKindServer, at, 12*time.Millisecond)
		a := root.Attributes()
		a.PutStr("http.request.method", method)
		a.PutStr("http.route", route)
		a.PutStr("url.path", fmt.Sprintf("/api/v1/resource/%d", r.IntN(1_000_000)))
		a.PutStr("url.scheme", "http")
		a.PutStr("network.protocol.version", "1.1")
		a.PutStr("client.address", fmt.Sprintf("10.%d.%d.%d", r.IntN(4), r.IntN(256), r.IntN(256)))
		a.PutStr("user_agent.original", fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64; rv:%d.0)", 100+r.IntN(30)))
		a.PutInt("http.response.status_code", status)
		a.PutInt("http.response.body.size", int64(r.IntN(20000)))
		a.PutStr("server.address", "api.example.com")
		if status >= 500 {
			root.Status().SetCode(ptrace.StatusCodeError)
		}
		for range 2 {
			c := loadSpan(ss, r, root.SpanID(), method, ptrace.SpanKindClient, at+time.Duration(r.IntN(200_000)), 8*time.Millisecond)
			host := fmt.Sprintf("backend-%d.internal", r.IntN(20))
			a := c.Attributes()
			a.PutStr("http.request.method", method)
			a.PutStr("server.address", host)
			a.PutInt("server.port", 8080)
			a.PutStr("url.full", fmt.Sprintf("http://%s:8080/items/%d", host, r.IntN(1_000_000)))
			a.PutStr("url.scheme", "http")
			a.PutStr("network.protocol.version", "1.1")
			a.PutStr("network.peer.address", fmt.Sprintf("10.1.0.%d", r.IntN(20)))
			a.PutInt("http.response.status_code", status)
			a.PutInt("http.response.body.size", int64(r.IntN(20000)))
			a.PutInt("network.peer.port", 8080)
		}
	}
	return td
}

func loadSpan(ss ptrace.ScopeSpans, r *rand.Rand, parent pcommon.SpanID, name string, kind ptrace.SpanKind, at, mean time.Duration) ptrace.Span {
	sp := ss.Spans().AppendEmpty()
	var tid pcommon.TraceID
	var sid pcommon.SpanID
	binary.BigEndian.PutUint64(tid[:], mark)
	binary.BigEndian.PutUint64(sid[:], r.Uint64())
	sp.SetTraceID(tid)
	sp.SetSpanID(sid)
	sp.SetParentSpanID(parent)
	sp.SetName(name)
	sp.SetKind(kind)
	sp.SetFlags(0x101)
	end := at + time.Duration(r.ExpFloat64()*float64(mean))
	sp.SetStartTimestamp(pcommon.Timestamp(timeMark + uint64(at)))
	sp.SetEndTimestamp(pcommon.Timestamp(timeMark + uint64(end)))
	return sp
}

// measureQueries asks what people ask and prints how long the answers take, each
// time for something else, so that a cache serves no answer whole.
func (l *traceLoad) measureQueries(t *testing.T, c *cluster, token string, times int) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, uint64(times)))
	hour := url.Values{
		"start": {fmt.Sprint(l.end.Add(-time.Hour).UnixMicro())}, "end": {fmt.Sprint(l.end.Add(time.Minute).UnixMicro())},
		"service": {"gateway"}, "limit": {"20"},
	}
	search := func(more ...string) string {
		v := url.Values{}
		for k, s := range hour {
			v[k] = s
		}
		for i := 0; i < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return "/jaeger/api/traces?" + v.Encode()
	}
	operation := func() string { return fmt.Sprintf("GET /api/v1/resource%d/{id}", r.IntN(40)) }
	for _, q := range []struct {
		name string
		path func() string
		want int // at least so many traces
	}{
		{"by trace id", func() string {
			return "/jaeger/api/traces/" + traceIDOf(r.IntN(l.requests), r.IntN(loadTraces)).String()
		}, 1},
		{"search: service, operation, 502, 1 h", func() string {
			return search("operation", operation(), "tags", `{"http.response.status_code":"502"}`)
		}, 1},
		{"search: … and minDuration 5 ms", func() string {
			return search("operation", operation(), "tags", `{"http.response.status_code":"502"}`, "minDuration", "5ms")
		}, 1},
		{"search: … and minDuration 40 ms, of which there are few", func() string {
			return search("operation", operation(), "tags", `{"http.response.status_code":"502"}`, "minDuration", "40ms")
		}, 0},
		{"search: service, one client, minDuration 5 ms, 1 h", func() string {
			return search("tags", fmt.Sprintf(`{"client.address":"10.%d.%d.%d"}`, r.IntN(4), r.IntN(256), r.IntN(256)), "minDuration", "5ms")
		}, 0},
		{"search: an attribute nobody has", func() string {
			return search("operation", operation(), "tags", fmt.Sprintf(`{"client.address":"none-%d"}`, r.IntN(1<<30)))
		}, 0},
	} {
		var ms []float64
		found, before := 0, c.manager.cpu(t)
		for range times {
			var out struct {
				Data []json.RawMessage `json:"data"`
			}
			path := q.path()
			began := time.Now()
			if err := c.get(path, token, &out); err != nil {
				t.Fatal(err)
			}
			ms = append(ms, float64(time.Since(began).Microseconds())/1000)
			found += len(out.Data)
			if len(out.Data) < q.want && l.requests > 1000 {
				t.Errorf("%s: %d traces; want at least %d", path, len(out.Data), q.want)
			}
		}
		used := float64((c.manager.cpu(t) - before).Microseconds()) / 1000 / float64(times)
		mid, low, high := spread(ms)
		t.Logf("%-52s %8.1f  %.1f to %.1f ms, CPU %.1f ms, %.1f traces each", q.name, mid, low, high, used, float64(found)/float64(times))
	}
}

// spread returns median, lowest and highest.
func spread(v []float64) (mid, low, high float64) {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2], s[0], s[len(s)-1]
}

// idleTraces says whether spans wait to be written.
func (c *cluster) idleTraces(token string) error {
	const name = "binnacle_traces_memory_spans"
	if v, err := c.metric(token, name); err != nil || v != 0 {
		return errors.Join(err, fmt.Errorf("%s is %v", name, v))
	}
	return nil
}

// metric reads the value of one metric of the manager; 0 where it has none of
// that name and labels.
func (c *cluster) metric(token, name string) (float64, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.base+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			_, err := fmt.Sscan(rest, &v)
			return v, err
		}
	}
	return 0, nil
}

// cpu is the processor time that the process took so far, of all its threads.
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ is 100 on Linux
}

// rss is the resident memory of the process in bytes.
func (p *process) rss(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(b), &total, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// diskUsage sums the sizes of all files below dir.
func diskUsage(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			sum += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
