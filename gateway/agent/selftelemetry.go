package agent

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/binnacle-project/binnacle"
)

const (
	// ownInterval is the least time between two exports of the agent's own
	// metrics; a bake makes only the worker's more frequent.
	ownInterval = 10 * time.Second
	// maxOwnSeries bounds such an export. There are some thirty.
	maxOwnSeries = 200
)

// ownProcess are the metrics of the agent's process that are worth their room.
var ownProcess = []string{"go_goroutines", "process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"}

// tellOfItself exports the agent's own counters, on the way of the worker's
// telemetry, until ctx ends.
func (a *Agent) tellOfItself(ctx context.Context) {
	for {
		if sleep(ctx, max(a.helm.interval(), ownInterval)) != nil {
			return
		}
		a.exportOwn()
	}
}

// exportOwn exports once. A node that is no member has nobody to tell.
func (a *Agent) exportOwn() {
	if a.identity.Load() == nil {
		return
	}
	body, err := ownMetrics(a.opts.Metrics, "agent-"+strconv.FormatInt(a.started.UnixMilli(), 36), a.started, time.Now())
	if err != nil {
		a.log.Warn("the agent's own metrics were not exported", "err", err)
		return
	}
	a.relay.Put("/v1/metrics", "application/x-protobuf", body)
}

// ownMetrics encodes the counters and gauges of set, and some of the process,
// as one OTLP request. Histograms and what is beyond maxOwnSeries are left out.
func ownMetrics(set *metrics.Set, instance string, started, now time.Time) ([]byte, error) {
	var text, process bytes.Buffer
	set.WritePrometheus(&text)
	metrics.WriteProcessMetrics(&process)
	for line := range bytes.Lines(process.Bytes()) {
		for _, name := range ownProcess {
			if bytes.HasPrefix(line, []byte(name+" ")) {
				text.Write(line)
			}
		}
	}

	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	attrs := rm.Resource().Attributes()
	attrs.PutStr("service.name", binnacle.ServiceAgent)
	attrs.PutStr("service.version", binnacle.Version)
	attrs.PutStr("service.instance.id", instance)
	if host, err := os.Hostname(); err == nil {
		attrs.PutStr("host.name", host)
	}
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("github.com/binnacle-project/binnacle/gateway/agent")
	sm.Scope().SetVersion(binnacle.Version)

	byName := map[string]pmetric.NumberDataPointSlice{}
	series := 0
	scanner := bufio.NewScanner(&text)
	for scanner.Scan() && series < maxOwnSeries {
		name, labels, value, ok := parseSample(scanner.Text())
		if !ok || strings.HasSuffix(name, "_bucket") {
			continue
		}
		points, ok := byName[name]
		if !ok {
			m := sm.Metrics().AppendEmpty()
			m.SetName(name)
			if strings.HasSuffix(name, "_total") {
				sum := m.SetEmptySum()
				sum.SetIsMonotonic(true)
				sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				points = sum.DataPoints()
			} else {
				points = m.SetEmptyGauge().DataPoints()
			}
			byName[name] = points
		}
		p := points.AppendEmpty()
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(started))
		p.SetTimestamp(pcommon.NewTimestampFromTime(now))
		p.SetDoubleValue(value)
		for _, l := range labels {
			p.Attributes().PutStr(l[0], l[1])
		}
		series++
	}
	body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		return nil, fmt.Errorf("encode the agent's own metrics: %w", err)
	}
	return body, nil
}

// parseSample reads a line of our own Prometheus text: name{label="value",…}
// value. Our label values need no escapes.
func parseSample(line string) (name string, labels [][2]string, value float64, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 || line[0] == '#' {
		return "", nil, 0, false
	}
	value, err := strconv.ParseFloat(line[i+1:], 64)
	if err != nil {
		return "", nil, 0, false
	}
	name, rest, found := strings.Cut(line[:i], "{")
	if !found {
		return name, nil, value, true
	}
	rest, found = strings.CutSuffix(rest, "}")
	if !found {
		return "", nil, 0, false
	}
	for _, pair := range strings.Split(rest, `",`) {
		k, v, found := strings.Cut(strings.TrimSuffix(pair, `"`), `="`)
		if !found {
			return "", nil, 0, false
		}
		labels = append(labels, [2]string{k, v})
	}
	return name, labels, value, true
}
