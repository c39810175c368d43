package activity

import (
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// FuzzWriteMetrics feeds whatever decodes, twice. Nothing may panic, and no
// window may hold more requests than its total.
func FuzzWriteMetrics(f *testing.F) {
	var enc pmetric.ProtoMarshaler
	now := time.Unix(1_800_000_000, 0)
	for _, form := range []string{"exp", "explicit", "krakend", "delta"} {
		n := newFakeNode("n1")
		n.form = form
		n.start = now.Add(-5 * time.Second)
		n.serve("/users/{id}", 200, 3, 0.01)
		n.call("b", 81, 503, 2, 0.2)
		first, err := enc.MarshalMetrics(n.export(now))
		if err != nil {
			f.Fatal(err)
		}
		n.serve("/users/{id}", 200, 3, 0.02)
		second, err := enc.MarshalMetrics(n.export(now.Add(10 * time.Second)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(first, second)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		a, err := Open(Options{MaxStreamsPerSender: 1000, MaxKeys: 1000})
		if err != nil {
			t.Fatal(err)
		}
		a.in.now = func() time.Time { return now.Add(10 * time.Second) }
		var dec pmetric.ProtoUnmarshaler
		for _, b := range [][]byte{first, second, first} {
			md, err := dec.UnmarshalMetrics(b)
			if err != nil {
				continue
			}
			feed(t, a, managed("n1", "default", 1), md)
		}
		for _, id := range []keyID{{kind: kindCluster}, {kind: kindNode, node: "n1"}} {
			k := a.keys.get(id)
			if k == nil {
				continue
			}
			act, _ := k.activity(3600, now.Unix()+20, &a.reading)
			if act != nil && act.Requests > act.RequestsTotal {
				t.Fatalf("%+v: %d requests in the last hour of %d in total", id, act.Requests, act.RequestsTotal)
			}
		}
	})
}

func TestPlaces(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"/users/{id}", "/users/{id}"},
		{"/users/:id", "/users/{id}"},
		{"/users/:id/orders/:order", "/users/{id}/orders/{order}"},
		{"/static/*rest", "/static/{rest}"},
		{"/a:b/c", "/a:b/c"},
		{"404 Not Found", ""},
		{"204 No Content", ""},
		{"", ""},
	} {
		if got := route(tc.in); got != tc.want {
			t.Errorf("route(%q): got %q; want %q", tc.in, got, tc.want)
		}
	}
	for in, want := range map[string]string{"GET": "GET", "": "", "PROPFIND": "_OTHER", "get": "_OTHER"} {
		if got := method(in); got != want {
			t.Errorf("method(%q): got %q; want %q", in, got, want)
		}
	}
}

func TestMetricOf(t *testing.T) {
	for _, tc := range []struct {
		name, unit      string
		ok, krakend     bool
		client, seconds bool
	}{
		{"http.server.request.duration", "s", true, false, false, true},
		{"http.client.request.duration", "s", true, false, true, true},
		{"http.server.duration", "", true, true, false, true},
		{"http.client.duration", "", true, true, true, true},
		{"http.server.duration", "ms", true, false, false, false},
		{"http.server.request.duration", "By", false, false, false, false},
		{"krakend.backend.duration", "", false, false, false, false},
	} {
		m, ok := metricOf(tc.name, tc.unit)
		if ok != tc.ok || ok && (m.krakend != tc.krakend || m.client != tc.client || (m.factor == 1) != tc.seconds) {
			t.Errorf("metricOf(%s, %q): got %+v, %v", tc.name, tc.unit, m, ok)
		}
	}
}

func TestMilliseconds(t *testing.T) {
	now := time.Now()
	a := open(t, Options{})
	a.in.now = func() time.Time { return now }
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "old")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("http.server.duration")
	m.SetUnit("ms")
	h := m.SetEmptyExponentialHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	s := &fakeStream{attrs: map[string]any{"http.method": "GET", "http.status_code": 200, "http.route": "/a"}, values: []float64{10, 10, 10}}
	exponentialPoint(h.DataPoints().AppendEmpty(), s, now.Add(-time.Second), now, 5)
	feed(t, a, managed("n1", "default", 1), md)
	k := a.keys.get(keyID{kind: kindEndpoint, group: "default", method: "GET", route: "/a"})
	if k == nil {
		t.Fatal("no endpoint")
	}
	act, _ := k.activity(30, aligned(now)+fineStep, &a.reading)
	if act.Requests != 3 || act.Latency.P50 < 0.009 || act.Latency.P50 > 0.011 {
		t.Errorf("got %+v, %+v; want 3 requests of 10 ms", act, act.Latency)
	}
}

func TestProcessLimit(t *testing.T) {
	sec := int64(time.Second)
	for _, tc := range []struct {
		name    string
		exports []int64
		managed bool
		want    int64
	}{
		{"managed, new", nil, true, 30},
		{"unmanaged, new", nil, false, 180},
		{"every 10 s", []int64{10, 20, 30, 40}, true, 30},
		{"every 2 s in a bake", []int64{2, 4, 6, 8}, true, 30},
		{"every 60 s", []int64{60, 120, 180, 240}, false, 180},
		{"one outage", []int64{10, 20, 30, 700}, true, 30},
		{"an export after a swap", []int64{10, 20, 20, 30}, true, 30},
		{"once an hour", []int64{3600, 7200, 10800, 14400}, false, 900},
	} {
		var p process
		for _, at := range tc.exports {
			p.exported(at * sec)
		}
		if got := p.limit(tc.managed) / sec; got != tc.want {
			t.Errorf("%s: got %d s; want %d", tc.name, got, tc.want)
		}
	}
}
