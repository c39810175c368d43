package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// encoding names one of the three ways to send the same request.
type wireForm string

const (
	viaGRPC  wireForm = "grpc"
	viaProto wireForm = "http/protobuf"
	viaJSON  wireForm = "http/json"
)

// answer is what came back, made comparable over the three.
type answer struct {
	code     codes.Code // OK for success
	http     int        // 0 over gRPC
	rejected int64
	message  string
	retry    time.Duration
}

// send sends one request of traces in the given encoding.
func (r *rig) send(t *testing.T, via wireForm, compression string, td ptrace.Traces) answer {
	t.Helper()
	req := ptraceotlp.NewExportRequestFromTraces(td)
	if via == viaGRPC {
		var opts []grpc.CallOption
		if compression != "" {
			opts = append(opts, grpc.UseCompressor(compression))
		}
		resp, err := ptraceotlp.NewGRPCClient(r.dial(t)).Export(t.Context(), req, opts...)
		if err != nil {
			return fromStatus(t, 0, grpcstatus.Convert(err).Proto())
		}
		ps := resp.PartialSuccess()
		return answer{rejected: ps.RejectedSpans(), message: ps.ErrorMessage()}
	}
	var (
		body  []byte
		media = mediaProto
	)
	if via == viaJSON {
		body, _ = req.MarshalJSON()
		media = mediaJSON
	} else {
		body, _ = req.MarshalProto()
	}
	return r.post(t, "/v1/traces", media, compression, body)
}

// post sends body over HTTP and decodes the answer by its Content-Type.
func (r *rig) post(t *testing.T, path, media, compression string, body []byte) answer {
	t.Helper()
	switch compression {
	case "gzip":
		body = gzipped(body)
	case "zstd":
		body = zstded(body)
	}
	hr, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http+path, bytes.NewReader(body))
	hr.Header.Set("Content-Type", media)
	if compression != "" {
		hr.Header.Set("Content-Encoding", compression)
	}
	resp, err := http.DefaultClient.Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusUnsupportedMediaType && media != mediaProto && media != mediaJSON {
		return answer{http: resp.StatusCode, code: codes.InvalidArgument, message: string(got)}
	}
	if ct := resp.Header.Get("Content-Type"); ct != media {
		t.Errorf("Content-Type of the answer is %q; want that of the request, %q", ct, media)
	}
	if resp.StatusCode != http.StatusOK {
		var st spb.Status
		if media == mediaJSON {
			err = protojson.Unmarshal(got, &st)
		} else {
			err = proto.Unmarshal(got, &st)
		}
		if err != nil {
			t.Fatalf("body of a %d is not a Status: %v", resp.StatusCode, err)
		}
		a := fromStatus(t, resp.StatusCode, &st)
		if ra := resp.Header.Get("Retry-After"); (ra != "") != (a.retry > 0) {
			t.Errorf("Retry-After is %q, RetryInfo %v", ra, a.retry)
		}
		return a
	}
	a := answer{http: resp.StatusCode}
	if strings.HasSuffix(path, "metrics") {
		er := pmetricotlp.NewExportResponse()
		if media == mediaJSON {
			err = er.UnmarshalJSON(got)
		} else {
			err = er.UnmarshalProto(got)
		}
		a.rejected, a.message = er.PartialSuccess().RejectedDataPoints(), er.PartialSuccess().ErrorMessage()
	} else {
		er := ptraceotlp.NewExportResponse()
		if media == mediaJSON {
			err = er.UnmarshalJSON(got)
		} else {
			err = er.UnmarshalProto(got)
		}
		a.rejected, a.message = er.PartialSuccess().RejectedSpans(), er.PartialSuccess().ErrorMessage()
	}
	if err != nil {
		t.Fatalf("body of a 200: %v", err)
	}
	return a
}

func fromStatus(t *testing.T, status int, st *spb.Status) answer {
	t.Helper()
	a := answer{http: status, code: codes.Code(st.Code), message: st.Message}
	for _, d := range st.Details {
		var ri errdetails.RetryInfo
		if d.UnmarshalTo(&ri) == nil {
			a.retry = ri.RetryDelay.AsDuration()
		}
	}
	return a
}

// TestAnswers is the OTLP specification's table of answers over all encodings:
// each case must come out the same in all three, but for what each calls it.
func TestAnswers(t *testing.T) {
	many := func(n int) ptrace.Traces { return sampleTraces(n, "service.name", "shop") }
	crowded := func() ptrace.Traces {
		td := many(1)
		attrs := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes()
		for i := range 200 {
			attrs.PutInt(fmt.Sprint("a", i), 1)
		}
		return td
	}
	tests := []struct {
		name     string
		td       ptrace.Traces
		identify Identify
		res      Result // of the sink
		err      error  // of the sink
		opts     Options

		code     codes.Code
		http     int
		rejected int64
		retry    time.Duration
		message  string // part of it
		kept     int
	}{
		{name: "accepted", td: many(3), http: 200, kept: 3},
		{name: "empty request", td: ptrace.NewTraces(), http: 200},
		{name: "managed", td: many(3), identify: nodeOne, http: 200, kept: 3},
		{name: "partial by the store", td: many(5), res: Result{Rejected: 2, Message: "too old"}, http: 200, rejected: 2, message: "too old", kept: 5},
		{name: "warning without rejection", td: many(1), res: Result{Message: "clock is off"}, http: 200, message: "clock is off", kept: 1},
		{name: "reserved attribute", td: sampleTraces(4, "binnacle.group", "edge"), http: 200, rejected: 4, message: "reserved"},
		{name: "an enrolled id", td: sampleTraces(4, "service.instance.id", "node-9"), opts: Options{IsNode: func(id binnacle.NodeID) bool { return id == "node-9" }},
			http: 200, rejected: 4, message: "enrolled node"},
		{name: "store retryable", td: many(1), err: fmt.Errorf("append: %w", Retry(errors.New("disk is full"), 7*time.Second)),
			code: codes.Unavailable, http: 503, retry: 7 * time.Second, message: "disk is full"},
		{name: "store permanent", td: many(1), err: Permanent(errors.New("bad span")), code: codes.InvalidArgument, http: 400, message: "bad span"},
		{name: "store internal", td: many(1), err: errors.New("secret path /x"), code: codes.Internal, http: 500, message: "its log says why"},
		{name: "unauthenticated", td: many(1), identify: func(context.Context, Sender) (binnacle.Origin, error) {
			return binnacle.Origin{}, errors.New("send a bearer token")
		}, code: codes.Unauthenticated, http: 401, message: "bearer token"},
		{name: "forbidden", td: many(1), identify: func(context.Context, Sender) (binnacle.Origin, error) {
			return binnacle.Origin{}, fmt.Errorf("node is revoked: %w", ErrForbidden)
		}, code: codes.PermissionDenied, http: 403, message: "revoked"},
		{name: "registry away", td: many(1), identify: func(context.Context, Sender) (binnacle.Origin, error) {
			return binnacle.Origin{}, Retry(errors.New("starting"), 3*time.Second)
		}, code: codes.Unavailable, http: 503, retry: 3 * time.Second, message: "starting"},
		{name: "too many bytes", td: many(100), opts: Options{MaxBytes: 1000}, code: codes.ResourceExhausted, http: 413, message: "than"},
		{name: "too many elements", td: many(100), opts: Options{MaxElements: 50}, code: codes.ResourceExhausted, http: 413, message: "more than 50 elements"},
		{name: "too many attributes", td: crowded(), code: codes.ResourceExhausted, http: 413, message: "attributes of one span"},
		{name: "too costly", td: many(1000), opts: Options{DecodeBytes: 100_000}, code: codes.ResourceExhausted, http: 413, message: "to decode"},
		{name: "memory short", td: many(1), opts: Options{SoftMemory: 1}, code: codes.Unavailable, http: 503, retry: time.Second, message: "memory is short"},
	}
	for _, tt := range tests {
		for _, via := range []wireForm{viaGRPC, viaProto, viaJSON} {
			for _, compression := range []string{"", "gzip", "zstd"} {
				t.Run(fmt.Sprintf("%s/%s/%s", tt.name, via, compression), func(t *testing.T) {
					opts, identify := tt.opts, tt.identify
					if identify == nil {
						identify = anyone
					}
					sink := &memSink{res: tt.res, err: tt.err}
					opts.Sink = sink
					td := ptrace.NewTraces()
					tt.td.CopyTo(td)
					got := newRig(t, opts, identify).send(t, via, compression, td)
					if !strings.Contains(got.message, tt.message) {
						t.Errorf("message is %q; want %q in it", got.message, tt.message)
					}
					if tt.message == "" && got.message != "" {
						t.Errorf("message is %q; want none", got.message)
					}
					got.message = ""
					want := answer{code: tt.code, rejected: tt.rejected, retry: tt.retry}
					if via != viaGRPC {
						want.http = tt.http
					}
					if got != want {
						t.Errorf("got %+v; want %+v", got, want)
					}
					if _, spans := sink.counts(); spans != tt.kept {
						t.Errorf("the sink got %d spans; want %d", spans, tt.kept)
					}
				})
			}
		}
	}
}

// TestHTTPOnly has the cases that only HTTP can come to.
func TestHTTPOnly(t *testing.T) {
	r := newRig(t, Options{}, anyone)
	okProto, _ := pmetricotlp.NewExportRequestFromMetrics(sampleMetrics()).MarshalProto()
	bomb := gzipped(make([]byte, 17<<20))
	tests := []struct {
		name, path, media, compression string
		body                           []byte
		http                           int
		message                        string
	}{
		{"metrics", "/v1/metrics", mediaProto, "", okProto, 200, ""},
		{"metrics gzip", "/v1/metrics", mediaProto, "gzip", okProto, 200, ""},
		{"identity by name", "/v1/metrics", mediaProto, "identity", okProto, 200, ""},
		{"empty body", "/v1/metrics", mediaProto, "", nil, 200, ""},
		{"empty object", "/v1/metrics", mediaJSON, "", []byte(`{}`), 200, ""},
		{"unknown JSON field", "/v1/traces", mediaJSON, "", []byte(`{"resourceSpans":[],"new":{"a":[1,2]}}`), 200, ""},
		{"logs", "/v1/logs", mediaProto, "", okProto, 501, "logs are not supported"},
		{"logs JSON", "/v1/logs", mediaJSON, "", []byte(`{}`), 501, "logs are not supported"},
		{"not protobuf", "/v1/traces", mediaProto, "", []byte("hello, world"), 400, "not OTLP protobuf"},
		{"not JSON", "/v1/traces", mediaJSON, "", []byte("hello, world"), 400, "not OTLP JSON"},
		{"a program as JSON", "/v1/metrics", mediaJSON, "", []byte("\x7fELF\x02\x01\xff\xfe\x00"), 400, "not OTLP JSON"},
		{"half JSON", "/v1/traces", mediaJSON, "", []byte(`{"resourceSpans":[{`), 400, "not OTLP JSON"},
		{"JSON of the wrong shape", "/v1/traces", mediaJSON, "", []byte(`{"resourceSpans":"x"}`), 400, "not OTLP JSON"},
		{"deep JSON", "/v1/traces", mediaJSON, "", bytes.Repeat([]byte("["), 1<<20), 413, "nested"},
		{"wide JSON", "/v1/traces", mediaJSON, "", []byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[` + strings.Repeat("{},", 3<<20) + `{}]}]}]}`), 413, "to decode"},
		{"text", "/v1/traces", "text/plain", "", okProto, 415, "application/x-protobuf"},
		{"brotli", "/v1/traces", mediaProto, "br", okProto, 415, "gzip, zstd or none"},
		{"not gzip", "/v1/traces", mediaProto, "gzip-not", okProto, 415, "not supported"},
		{"zip bomb", "/v1/traces", mediaProto, "bomb", bomb, 413, "inflated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.compression == "bomb" { // is compressed already
				hr, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http+tt.path, bytes.NewReader(tt.body))
				hr.Header.Set("Content-Type", tt.media)
				hr.Header.Set("Content-Encoding", "gzip")
				resp, err := http.DefaultClient.Do(hr)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != tt.http {
					t.Errorf("status is %d; want %d", resp.StatusCode, tt.http)
				}
				return
			}
			got := r.post(t, tt.path, tt.media, tt.compression, tt.body)
			if got.http != tt.http || !strings.Contains(got.message, tt.message) {
				t.Errorf("got %d %q; want %d %q", got.http, got.message, tt.http, tt.message)
			}
		})
	}
	t.Run("GET", func(t *testing.T) {
		resp, err := http.Get(r.http + "/v1/traces")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
			t.Errorf("GET: got %d, Allow %q; want 405, POST", resp.StatusCode, resp.Header.Get("Allow"))
		}
	})
	if got := r.budget.used.Load(); got != 0 {
		t.Errorf("%d bytes of the decoding budget were not given back", got)
	}
	if got := r.gate.inFlight.Load(); got != 0 {
		t.Errorf("%d requests did not leave", got)
	}
}

func TestLogsOverGRPC(t *testing.T) {
	r := newRig(t, Options{}, anyone)
	var out []byte
	err := r.dial(t).Invoke(t.Context(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export", &errdetails.RetryInfo{}, &errdetails.RetryInfo{})
	if st := grpcstatus.Convert(err); st.Code() != codes.Unimplemented || !strings.Contains(st.Message(), "logs are not supported") {
		t.Errorf("logs: got %v %s; want UNIMPLEMENTED with a sentence", st, out)
	}
	err = r.dial(t).Invoke(t.Context(), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", &spb.Status{Code: 5}, &spb.Status{})
	if st := grpcstatus.Convert(err); st.Code() != codes.InvalidArgument {
		t.Errorf("metrics that are none: got %v; want INVALID_ARGUMENT", st)
	}
}

func TestIdentifySeesHeadersAndPeer(t *testing.T) {
	var seen []Sender
	r := newRig(t, Options{}, func(_ context.Context, s Sender) (binnacle.Origin, error) {
		seen = append(seen, s)
		if s.Header("Binnacle-Revision") != "12" {
			return binnacle.Origin{}, errors.New("no revision")
		}
		return binnacle.Origin{}, nil
	})
	body, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(1, "service.name", "shop")).MarshalProto()
	hr, _ := http.NewRequest(http.MethodPost, r.http+"/v1/traces", bytes.NewReader(body))
	hr.Header.Set("Content-Type", mediaProto)
	hr.Header.Set(binnacle.HeaderRevision, "12")
	resp, err := http.DefaultClient.Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("HTTP: got %d; want 200", resp.StatusCode)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), binnacle.HeaderRevision, "12")
	_, err = ptraceotlp.NewGRPCClient(r.dial(t)).Export(ctx, ptraceotlp.NewExportRequestFromTraces(sampleTraces(1, "service.name", "shop")))
	if err != nil {
		t.Errorf("gRPC: %v", err)
	}
	for _, s := range seen {
		if !s.Peer.Addr().IsLoopback() {
			t.Errorf("peer is %v; want a loopback address", s.Peer)
		}
	}
	// Without service.instance.id the identity is made of name and address.
	for _, td := range r.sink.traces {
		id, _ := td.ResourceSpans().At(0).Resource().Attributes().Get(attrServiceInstance)
		if id.AsString() != "shop@127.0.0.1" {
			t.Errorf("identity is %q; want shop@127.0.0.1", id.AsString())
		}
	}
	for _, o := range r.sink.origins {
		if !o.Peer.IsLoopback() {
			t.Errorf("origin's peer is %v", o.Peer)
		}
	}
}

// TestEveryRequestIsCounted sends one refused and one accepted request by each
// way, and one that gRPC refuses before it calls any handler.
func TestEveryRequestIsCounted(t *testing.T) {
	r := newRig(t, Options{MaxBytes: 2000}, anyone)
	for _, via := range []wireForm{viaGRPC, viaProto} {
		r.send(t, via, "", sampleTraces(1))
		r.send(t, via, "", sampleTraces(100))
		transport, _, _ := strings.Cut(string(via), "/")
		for _, result := range []string{"ok", "too_large"} {
			name := fmt.Sprintf("binnacle_otlp_requests_total{signal=%q,transport=%q,result=%q}", "traces", transport, result)
			deadline := time.Now().Add(5 * time.Second)
			for r.counter(name) != 1 && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond) // gRPC counts after it answered
			}
			if got := r.counter(name); got != 1 {
				t.Errorf("%s is %d; want 1", name, got)
			}
		}
	}
	if got := r.gate.inFlight.Load(); got != 0 {
		t.Errorf("%d requests did not leave", got)
	}
}

func TestBudget(t *testing.T) {
	busy := newBusyMeters(metrics.NewSet())
	waits := 0
	b := newBudget(100<<20, 20*time.Millisecond, &busy, func(time.Time) { waits++ })
	peer := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	one := b.reserve(peer(1))
	if err := one.grow(t.Context(), 80<<20); err != nil {
		t.Fatal(err)
	}
	two := b.reserve(peer(2))
	err := two.grow(t.Context(), 30<<20)
	if ref := classify(err); ref.retry == 0 || busy.decoding.Get() != 1 || waits != 1 {
		t.Errorf("over the budget: got %v, counted %d, %d waits; want a retryable refusal, counted once", err, busy.decoding.Get(), waits)
	}
	one.release()
	one.release()
	if err := two.grow(t.Context(), 1000<<20); err != nil || two.held != 100<<20 {
		t.Errorf("more than the budget: got %v, held %d; want all of it", err, two.held)
	}
	two.release()
	if b.used.Load() != 0 {
		t.Errorf("used is %d; want 0", b.used.Load())
	}
	// One peer gets half, in requests of any number.
	var shares []*share
	for err = nil; err == nil && len(shares) < 10; {
		s := b.reserve(peer(3))
		shares = append(shares, s)
		err = s.grow(t.Context(), 20<<20)
	}
	if waits != 2 {
		t.Errorf("%d waits; want the third request to have waited for the first two", waits)
	}
	if len(shares) != 3 || classify(err).retry == 0 || busy.peer.Get() != 1 {
		t.Errorf("request %d of one peer: %v, counted %d; want the third refused, as retryable", len(shares), err, busy.peer.Get())
	}
	other := b.reserve(peer(4))
	if err := other.grow(t.Context(), 20<<20); err != nil {
		t.Errorf("another peer: %v", err)
	}
	for _, s := range append(shares, other) {
		s.release()
	}
	if len(b.peers) != 0 || b.used.Load() != 0 {
		t.Errorf("after all: peers %v, used %d; want none", b.peers, b.used.Load())
	}
}

func TestTooManyInFlight(t *testing.T) {
	busyMeters := newBusyMeters(metrics.NewSet())
	g := newGate(1, -1, &busyMeters)
	if err := g.enter(); err != nil {
		t.Fatal(err)
	}
	if err := g.enter(); classify(err).reason != busy {
		t.Errorf("second: got %v; want busy", err)
	}
	g.leave()
	if err := g.enter(); err != nil {
		t.Errorf("after leaving: %v", err)
	}
}

type panicSink struct{ SinkFuncs }

func (panicSink) WriteTraces(context.Context, binnacle.Origin, *wire.Traces) (Result, error) {
	panic("boom")
}

func TestPanicOfAStoreIsAnAnswer(t *testing.T) {
	for _, via := range []wireForm{viaGRPC, viaProto} {
		r := newRig(t, Options{Sink: panicSink{}}, anyone)
		if got := r.send(t, via, "", sampleTraces(1)); got.code != codes.Internal {
			t.Errorf("%s: got %+v; want INTERNAL", via, got)
		}
		if r.counter("binnacle_otlp_panics_total") != 1 {
			t.Errorf("%s: panic was not counted", via)
		}
	}
}

func TestFan(t *testing.T) {
	soon := Retry(errors.New("soon"), time.Second)
	never := Permanent(errors.New("never"))
	tests := []struct {
		name  string
		sinks []*memSink
		want  Result
		err   error
	}{
		{"none", nil, Result{}, nil},
		{"merged", []*memSink{{res: Result{2, "a"}}, {res: Result{3, "b"}}, {}}, Result{3, "a; b"}, nil},
		{"same message once", []*memSink{{res: Result{1, "a"}}, {res: Result{1, "a"}}}, Result{1, "a"}, nil},
		{"an error, others still called", []*memSink{{err: never}, {}}, Result{}, never},
		{"retryable wins", []*memSink{{err: never}, {err: soon}}, Result{}, soon},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var all []Sink
			for _, s := range tt.sinks {
				all = append(all, s)
			}
			got, err := Fan(all...).WriteMetrics(t.Context(), binnacle.Origin{}, toWire(sampleMetrics()))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
			for i, s := range tt.sinks {
				if points, _ := s.counts(); s.err == nil && points != 10 {
					t.Errorf("sink %d got %d points; want 10", i, points)
				}
			}
		})
	}
}

func TestInProcess(t *testing.T) {
	r := newRig(t, Options{}, anyone)
	md := sampleMetrics("service.name", "binnacle-manager", "service.instance.id", "m1", "binnacle.x", "kept")
	res, err := r.ReceiveMetrics(t.Context(), binnacle.Origin{Cluster: "c1"}, md)
	if err != nil || res != (Result{}) {
		t.Fatalf("ReceiveMetrics: got %+v, %v", res, err)
	}
	attrs := r.sink.metrics[0].ResourceMetrics().At(0).Resource().Attributes().AsRaw()
	if attrs["binnacle.cluster"] != "c1" || attrs["service.instance.id"] != "m1" || attrs["binnacle.x"] != "kept" {
		t.Errorf("attributes are %v", attrs)
	}
	if _, err := r.ReceiveTraces(t.Context(), binnacle.Origin{}, sampleTraces(2)); err != nil {
		t.Fatal(err)
	}
	if points, spans := r.sink.counts(); points != 10 || spans != 2 {
		t.Errorf("the sink got %d points, %d spans; want 10, 2", points, spans)
	}
}

func TestAttribution(t *testing.T) {
	node := binnacle.Origin{Managed: true, Cluster: "c1", Node: "node-1", Group: "edge"}
	tests := []struct {
		name   string
		origin binnacle.Origin
		in     []string
		want   string // JSON of the attributes; "" = refused
	}{
		{"managed", node, []string{"service.instance.id", "proc-7", "service.name", "gw"},
			`{"binnacle.cluster":"c1","binnacle.group":"edge","binnacle.process":"proc-7","service.instance.id":"node-1","service.name":"gw"}`},
		{"managed lies", node, []string{"service.instance.id", "proc-7", "binnacle.group", "other", "binnacle.cluster", "x"},
			`{"binnacle.cluster":"c1","binnacle.group":"edge","binnacle.process":"proc-7","service.instance.id":"node-1"}`},
		{"managed without instance", node, nil, `{"binnacle.cluster":"c1","binnacle.group":"edge","service.instance.id":"node-1"}`},
		{"managed, agent's own", node, []string{"service.instance.id", "node-1"}, `{"binnacle.cluster":"c1","binnacle.group":"edge","service.instance.id":"node-1"}`},
		{"unmanaged", binnacle.Origin{}, []string{"service.instance.id", "i1"}, `{"service.instance.id":"i1"}`},
		{"unmanaged, no id", binnacle.Origin{}, []string{"service.name", "shop"}, `{"service.instance.id":"shop","service.name":"shop"}`},
		{"unmanaged, nothing", binnacle.Origin{}, nil, `{"service.instance.id":"unknown_service"}`},
		{"unmanaged, reserved", binnacle.Origin{}, []string{"binnacle.process", "x"}, ``},
		{"unmanaged, a node's id", binnacle.Origin{}, []string{"service.instance.id", "node-1"}, ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := attribution{origin: tt.origin, isNode: func(id binnacle.NodeID) bool { return id == "node-1" }}
			md := sampleMetrics(tt.in...)
			m := toWire(md)
			res := a.metrics(m)
			md = toPdata(m)
			if tt.want == "" {
				if res.Rejected != 10 || res.Message == "" || md.DataPointCount() != 0 {
					t.Errorf("got %+v, %d points left; want all ten refused", res, md.DataPointCount())
				}
				return
			}
			got, _ := json.Marshal(md.ResourceMetrics().At(0).Resource().Attributes().AsRaw())
			if string(got) != tt.want || res != (Result{}) {
				t.Errorf("got %s, %+v\nwant %s", got, res, tt.want)
			}
		})
	}
}

func TestReservedItems(t *testing.T) {
	a := attribution{isNode: func(binnacle.NodeID) bool { return false }}
	md := sampleMetrics("service.name", "x")
	for _, m := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		switch m.Type() { // one of two points of each type
		case pmetric.MetricTypeGauge:
			m.Gauge().DataPoints().At(0).Attributes().PutStr("binnacle.revision", "3")
		case pmetric.MetricTypeSum:
			m.Sum().DataPoints().At(0).Attributes().PutStr("binnacle.revision", "3")
		case pmetric.MetricTypeHistogram:
			m.Histogram().DataPoints().At(0).Attributes().PutStr("binnacle.revision", "3")
		case pmetric.MetricTypeExponentialHistogram:
			m.ExponentialHistogram().DataPoints().At(0).Attributes().PutStr("binnacle.revision", "3")
		case pmetric.MetricTypeSummary:
			m.Summary().DataPoints().At(0).Attributes().PutStr("binnacle.revision", "3")
		}
	}
	batch := toWire(md)
	if res := a.metrics(batch); res.Rejected != 5 || batch.Points() != 5 || toPdata(batch).DataPointCount() != 5 {
		t.Errorf("got %+v and %d points left; want 5 refused, 5 left", res, batch.Points())
	}
	td := sampleTraces(3)
	td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(1).Attributes().PutStr("binnacle.revision", "3")
	spans, err := wire.TracesFromPdata(td)
	if err != nil {
		t.Fatal(err)
	}
	if res := a.traces(spans); res.Rejected != 1 || spans.Spans() != 2 {
		t.Errorf("got %+v and %d spans left; want 1 refused, 2 left", res, spans.Spans())
	}
}

func FuzzHTTP(f *testing.F) {
	pb, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(2, "a", "b")).MarshalProto()
	js, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(2, "a", "b")).MarshalJSON()
	mpb, _ := pmetricotlp.NewExportRequestFromMetrics(sampleMetrics()).MarshalProto()
	mjs, _ := pmetricotlp.NewExportRequestFromMetrics(sampleMetrics()).MarshalJSON()
	f.Add(pb, false, false, "")
	f.Add(js, true, false, "")
	f.Add(mpb, false, true, "")
	f.Add(mjs, true, true, "")
	f.Add(gzipped(pb), false, false, "gzip")
	f.Add(zstded(mpb), false, true, "zstd")
	r := New(Options{Sink: SinkFuncs{}, MaxBytes: 1 << 20, DecodeBytes: 8 << 20})
	h := r.HTTPHandler(anyone)
	f.Fuzz(func(t *testing.T, body []byte, asJSON, asMetrics bool, enc string) {
		path, media := "/v1/traces", mediaProto
		if asMetrics {
			path = "/v1/metrics"
		}
		if asJSON {
			media = mediaJSON
		}
		req, _ := http.NewRequest(http.MethodPost, path, bytes.NewReader(body))
		req.Header.Set("Content-Type", media)
		req.Header.Set("Content-Encoding", enc)
		w := &discardWriter{h: http.Header{}}
		h.ServeHTTP(w, req)
		switch w.status {
		case 200, 400, 413, 415:
		default:
			t.Fatalf("status %d", w.status)
		}
		if r.budget.used.Load() != 0 || r.gate.inFlight.Load() != 0 {
			t.Fatal("the request left something behind")
		}
		if r.meters.panics.Get() != 0 {
			t.Fatal("the decoder panicked")
		}
	})
}

type discardWriter struct {
	h      http.Header
	status int
}

func (w *discardWriter) Header() http.Header         { return w.h }
func (w *discardWriter) WriteHeader(s int)           { w.status = s }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
