package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// krakendPanels are the queries of KrakenD's public dashboard for Prometheus
// (Grafana 20651) and of the one beside krakend-otel, with their variables.
// Panels that differ by the quantile alone stand here once.
var krakendPanels = []string{
	`sum(delta(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range]))`,
	`sum(delta(krakend_proxy_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range]))`,
	`sum(delta(krakend_backend_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range]))`,
	`sum by(http_response_status_code) (delta(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range]))`,
	`sum by(http_response_status_code) (delta(http_server_duration_count{instance=~"$instance", http_route=~"$endpoint"}[$__interval]))`,
	`sum by(http_response_status_code) (delta(http_client_duration_count{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__interval]))`,
	`sum(max_over_time(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range])-min_over_time(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range]))/ $__range_s`,
	`sum(rate(http_server_duration_sum{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range])) / (sum(rate(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__range]))+0.0001)`,
	`sum(rate(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval]))`,
	`rate(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval])`,
	`sum(rate(http_server_duration_sum{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval]))/count(max_over_time(http_server_duration_sum{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval]))`,
	`sum by (http_request_method, http_route) (rate(http_server_duration_sum{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval]))/sum by (http_request_method, http_route) (rate(http_server_duration_count{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval]))`,
	`histogram_quantile(1, sum by(le) (rate(http_server_duration_bucket{app=~"$app", instance=~"$instance",http_route=~"$endpoint"}[$__rate_interval])))`,
	`histogram_quantile(0.99, sum by(le) (rate(http_server_duration_bucket{app=~"$app", instance=~"$instance",http_route=~"$endpoint"}[$__rate_interval])))`,
	`histogram_quantile(0.5, sum by(le) (delta(http_server_duration_bucket{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval])))`,
	`histogram_quantile(0.95, sum by(le, http_route, http_request_method) (rate(http_server_duration_bucket{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval])))`,
	`sum(increase(http_server_duration_bucket{instance=~"$instance", http_route=~"$endpoint"}[$__interval])) by (le)`,
	`topk($max_list, histogram_quantile(0.95, sum by (le, http_route) (rate(http_server_duration_bucket{instance=~"$instance", http_route!=""}[$__range])))) >= 0`,
	`bottomk($max_list, histogram_quantile(0.95, sum by (le, http_route) (rate(http_server_duration_bucket{instance=~"$instance", http_route!=""}[$__range])))) >= 0`,
	`sum(rate(http_server_response_size_sum{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$interval]))`,
	`rate(http_server_response_size_sum{instance=~"$instance", http_route=~"$endpoint"}[$interval]) / rate(http_server_response_size_count{instance=~"$instance", http_route=~"$endpoint"}[$interval])`,
	`sum(rate(http_server_response_size_sum{instance=~"$instance", http_route=~"$endpoint"}[$interval]) / (1 +rate(http_server_response_size_count{instance=~"$instance", http_route=~"$endpoint"}[$__rate_interval])))`,
	`topk($max_list, histogram_quantile(0.95, sum by (le, http_route) (rate(http_server_response_size_bucket{app=~"$app", instance=~"$instance"}[$__range])))) >= 0`,
	`sum(increase(http_server_response_size_bucket{instance=~"$instance", http_route=~"$endpoint"}[$__interval])) by (le)`,
	`histogram_quantile(0.95, sum by(le) (rate(krakend_proxy_duration_bucket{app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__rate_interval])))`,
	`histogram_quantile(0.95, sum by(le, http_route, http_request_method) (rate(krakend_proxy_duration_bucket{instance=~"$instance", http_route=~"$endpoint"}[$__rate_interval])))`,
	`sum(rate(krakend_proxy_duration_count{complete="false",app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__rate_interval]))`,
	`sum(rate(krakend_proxy_duration_count{error="true",app=~"$app", instance=~"$instance", http_route=~"$endpoint"}[$__rate_interval]))`,
	`rate(krakend_proxy_duration_count{instance=~"$instance", http_route=~"$endpoint"}[$interval])`,
	`sum(increase(krakend_proxy_duration_bucket{instance=~"$instance", http_route=~"$endpoint"}[$__interval])) by (le)`,
	`histogram_quantile(0.95, sum by(le) (rate(krakend_backend_duration_bucket{instance=~"$instance", http_route=~"$endpoint"}[$__rate_interval])))`,
	`histogram_quantile(0.95, sum by(le, http_route, http_request_method, server_address) (rate(krakend_backend_duration_bucket{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval])))`,
	`rate(http_client_duration_count{app=~"$app", instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$interval])`,
	`sum by(http_request_method, http_route, server_address) (rate(http_client_duration_sum{app=~"$app", instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval]))/sum by(http_request_method, http_route, server_address) (rate(http_client_duration_count{app=~"$app", instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval]))`,
	`histogram_quantile(0.95, sum by(le, http_route, http_request_method, server_address) (rate(http_client_duration_bucket{app=~"$app", instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval])))`,
	`topk($max_list, histogram_quantile(0.95, sum by (le, http_route, server_address, http_request_method) (rate(http_client_duration_bucket{instance=~"$instance", krakend_endpoint_route=~"$endpoint", http_route!=""}[$__range])))) >= 0`,
	`sum(increase(http_client_duration_bucket{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__interval])) by (le)`,
	`histogram_quantile(0.95, sum by(le) (rate(http_client_response_size_bucket{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval])))`,
	`rate(http_client_response_size_sum{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$interval]) / rate(http_client_response_size_count{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$interval])`,
	`histogram_quantile(0.95, sum by(le) (rate(http_client_request_get_conn_duration_bucket{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval])))`,
	`sum(rate(http_client_request_started_count_total{instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$__rate_interval]))`,
	`rate(http_client_response_no_content_length_total{app=~"$app", instance=~"$instance", krakend_endpoint_route=~"$endpoint"}[$interval])`,
}

// Bounds of krakend-otel, in seconds and bytes. Its histograms have no unit, so
// that their names get no suffix.
var (
	krakendTimes = []float64{0.01, 0.02, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.5, 0.75, 1, 1.5, 2, 3.5, 5, 10}
	krakendSizes = []float64{128, 256, 512, 1024, 4096, 8192, 16384, 32768, 65536, 262144, 524288, 1048576, 4194304, 16777216, 67108864}
)

// stockGateway makes what one KrakenD exports every 15 s, from its own counts.
type stockGateway struct {
	instance string
	start    time.Time
	r        *rand.Rand
	counts   map[string][]uint64
	sums     map[string]float64
}

// histogram adds one histogram of the gateway to ms, some observations further.
func (g *stockGateway) histogram(ms pmetric.MetricSlice, at time.Time, name string, bounds []float64, attrs ...string) {
	key := name + fmt.Sprint(attrs)
	c := g.counts[key]
	first := c == nil
	if first {
		c = make([]uint64, len(bounds)+1)
		g.counts[key] = c
	}
	for range g.r.IntN(20) {
		i := g.r.IntN(len(c))
		c[i]++
		g.sums[key] += bounds[min(i, len(bounds)-1)]
	}
	dp := explicitHistogram(ms, name, g.start, at, bounds, slices.Clone(c), g.sums[key], attrs...)
	ms.At(ms.Len() - 1).SetUnit("")
	if !first && g.r.IntN(40) == 0 {
		dp.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	}
}

func (g *stockGateway) export(at time.Time) pmetric.Metrics {
	md, ms := payloadOf("service.name", "krakend", "service.instance.id", g.instance)
	for _, route := range []string{"/users/:id", "/orders", "/health"} {
		for _, status := range []string{"200", "404", "500"} {
			a := []string{"http.request.method", "GET", "url.scheme", "http", "http.route", route, "http.response.status_code", status}
			g.histogram(ms, at, "http.server.duration", krakendTimes, a...)
			g.histogram(ms, at, "http.server.response.size", krakendSizes, a...)
		}
		for _, failed := range []string{"false", "true"} {
			g.histogram(ms, at, "krakend.proxy.duration", krakendTimes, "http.route", route, "http.request.method", "GET", "error", failed, "canceled", "false", "complete", map[string]string{"true": "false", "false": "true"}[failed])
			for _, backend := range []string{"users:80", "orders:80"} {
				b := []string{"krakend.endpoint.route", route, "krakend.endpoint.method", "GET", "http.route", "/api", "http.request.method", "GET", "server.address", backend}
				g.histogram(ms, at, "krakend.backend.duration", krakendTimes, append(b, "error", failed)...)
				b = append(b, "http.response.status_code", map[string]string{"true": "502", "false": "200"}[failed])
				g.histogram(ms, at, "http.client.duration", krakendTimes, b...)
				g.histogram(ms, at, "http.client.response.size", krakendSizes, b...)
				g.histogram(ms, at, "http.client.request.get-conn.duration", krakendTimes, b...)
				counter(ms, "http.client.request.started.count", g.start, at, at.Unix()-g.start.Unix(), b...)
				counter(ms, "http.client.response.no-content-length", g.start, at, (at.Unix()-g.start.Unix())/2, b...)
			}
		}
	}
	return md
}

// TestKrakendDashboard fills one store that keeps native histograms and one that
// keeps classic ones with an hour of three stock gateways, one of which restarts
// and one of which is away for a while, and wants every panel of KrakenD's public
// dashboard to say the same of both.
func TestKrakendDashboard(t *testing.T) {
	native, classic := openStore(t), openStore(t, func(o *Options) { o.Histograms = Classic })
	const span = 30 * time.Minute
	for n := range 3 {
		g := &stockGateway{instance: fmt.Sprint("gw-", n), r: rand.New(rand.NewPCG(uint64(n), 1))}
		boot := func(at time.Time) {
			g.start, g.counts, g.sums = at, map[string][]uint64{}, map[string]float64{}
		}
		boot(now.Add(-span))
		for at := now.Add(15*time.Second - span); !at.After(now); at = at.Add(15 * time.Second) {
			switch {
			case n == 1 && at.Equal(now.Add(-10*time.Minute)):
				boot(at.Add(-5 * time.Second))
			case n == 2 && at.After(now.Add(-20*time.Minute)) && at.Before(now.Add(-12*time.Minute)):
				continue
			}
			md := g.export(at)
			write(t, native, node1, md)
			write(t, classic, node1, md)
		}
	}
	fill := strings.NewReplacer("$app", ".*", "$instance", "gw-1|gw-2", "$endpoint", "/users/:id|/orders|/api",
		"$__range_s", "1800", "$__range", "30m", "$__rate_interval", "1m", "$__interval", "30s", "$interval", "5m", "$max_list", "5")
	empty := 0
	for _, panel := range krakendPanels {
		expr := fill.Replace(panel)
		ask := func(s *Store) promql.Matrix {
			t.Helper()
			m, err := s.QueryRange(t.Context(), expr, now.Add(-span), now, 30*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			slices.SortFunc(m, func(a, b promql.Series) int { return strings.Compare(a.Metric.String(), b.Metric.String()) })
			return m
		}
		got, want := ask(native), ask(classic)
		if diff := differ(got, want); diff != "" {
			t.Errorf("%s: %s", expr, diff)
		}
		if len(want) == 0 {
			empty++
			t.Logf("no data: %s", expr)
		}
	}
	if empty > 0 {
		t.Errorf("%d of %d panels have no data: the test shows less than it says", empty, len(krakendPanels))
	}

	// The variables of the dashboard, and what its editor asks for.
	nativeAPI, classicAPI := serve(t, native), serve(t, classic)
	within := url.Values{"start": {seconds(now.Add(-span))}, "end": {seconds(now)}}
	for _, c := range []struct {
		call  string
		match []string
	}{
		{"label/app/values", nil},
		{"label/instance/values", nil},
		{"label/http_route/values", []string{"krakend_proxy_duration_bucket"}},
		{"label/le/values", []string{"krakend_proxy_duration_bucket"}},
		{"label/le/values", []string{`http_server_response_size_bucket{instance="gw-1"}`, "http_server_duration_bucket"}},
		{"label/__name__/values", []string{`{__name__=~"krakend_.*_(bucket|count|sum)"}`}},
		{"label/http_response_status_code/values", []string{`{__name__=~"http_client_.+_count"}`}},
		{"labels", []string{"http_server_duration_bucket"}},
		{"labels", []string{`{__name__=~"krakend_.+_duration_bucket"}`}},
		{"labels", nil},
		{"series", []string{`http_server_duration_bucket{le="0.1"}`}},
		{"series", []string{`krakend_proxy_duration_bucket{le!~"0.*|1|10"}`}},
		{"series", []string{`krakend_backend_duration_count{error="true"}`, `krakend_backend_duration_sum{error!="true"}`}},
		{"series", []string{`{__name__=~"krakend_[a-z]+_duration_bucket",le="+Inf"}`}},
	} {
		form := url.Values{"match[]": c.match, "start": within["start"], "end": within["end"]}
		got, want := elements(t, nativeAPI+c.call, form), elements(t, classicAPI+c.call, form)
		if !slices.Equal(got, want) || len(want) == 0 && c.call != "label/app/values" {
			t.Errorf("GET %s %q:\n native  %d: %.400s\n classic %d: %.400s", c.call, c.match, len(got), got, len(want), want)
		}
	}
}

// elements asks for a list and returns its elements, sorted.
func elements(t *testing.T, address string, form url.Values) (list []string) {
	t.Helper()
	status, body := call(t, http.MethodGet, address, form)
	var answer struct{ Data []json.RawMessage }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("GET %s: %d %.200s, %v", address, status, body, err)
	}
	for _, e := range answer.Data {
		list = append(list, string(e))
	}
	slices.Sort(list)
	return list
}

// differ says how two range results differ, but for the last digits of sums,
// which depend on the order of addition. "" means not at all.
func differ(got, want promql.Matrix) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d series; want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Metric.String() != w.Metric.String() || len(g.Floats) != len(w.Floats) || len(g.Histograms) != 0 {
			return fmt.Sprintf("series %s of %d samples; want %s of %d", g.Metric, len(g.Floats), w.Metric, len(w.Floats))
		}
		for k, p := range w.Floats {
			q := g.Floats[k]
			same := q.F == p.F || math.IsNaN(q.F) && math.IsNaN(p.F) || math.Abs(q.F-p.F) <= 1e-9*math.Abs(p.F)
			if q.T != p.T || !same {
				return fmt.Sprintf("%s at %s: %g; want %g", w.Metric, time.UnixMilli(p.T).Sub(now), q.F, p.F)
			}
		}
	}
	return ""
}
