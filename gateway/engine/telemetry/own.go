package telemetry

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// ownCounters tells what the worker counts of itself. A worker has no /metrics
// of its own: its counters go where its telemetry goes.
type ownCounters struct {
	set   *metrics.Set
	start time.Time
}

// metrics reads the set: names that end with _total as sums, others as gauges.
// Histograms and summaries are left out; a worker has none.
//
// Source: Prometheus text format 0.0.4.
func (c *ownCounters) metrics(now time.Time) []metricdata.Metrics {
	var text bytes.Buffer
	c.set.WritePrometheus(&text)
	points := map[string][]metricdata.DataPoint[float64]{}
	for line := range strings.Lines(text.String()) {
		if name, p, ok := parseSample(strings.TrimSpace(line)); ok {
			p.StartTime, p.Time = c.start, now
			points[name] = append(points[name], p)
		}
	}
	var out []metricdata.Metrics
	for name, ps := range points {
		m := metricdata.Metrics{Name: name, Data: metricdata.Gauge[float64]{DataPoints: ps}}
		if strings.HasSuffix(name, "_total") {
			m.Data = metricdata.Sum[float64]{DataPoints: ps, Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b metricdata.Metrics) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// parseSample reads one line: name{label="value",…} number.
func parseSample(line string) (name string, p metricdata.DataPoint[float64], ok bool) {
	id, number, ok := cutLast(line, " ")
	if !ok || strings.HasPrefix(line, "#") {
		return "", p, false
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return "", p, false
	}
	name, labels, _ := strings.Cut(id, "{")
	var kvs []attribute.KeyValue
	for labels = strings.TrimSuffix(labels, "}"); labels != ""; labels = strings.TrimPrefix(labels, ",") {
		key, rest, ok := strings.Cut(labels, "=")
		if !ok {
			return "", p, false
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return "", p, false
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return "", p, false
		}
		kvs = append(kvs, attribute.String(key, value))
		labels = rest[len(quoted):]
	}
	p.Attributes, p.Value = attribute.NewSet(kvs...), v
	return name, p, true
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
