package metrics

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/common/model"
)

// metaStore remembers type, unit and help of each metric name, for the
// metadata call: Grafana's query builder gives the right hints for native
// histograms only if they are called histograms there. It is filled as data
// comes in, and kept in a file (metafile.go). Safe for concurrent use.
type metaStore struct {
	mu    sync.RWMutex
	m     map[string][]Metadata
	fresh map[string]bool // learned since the last keep
	ours  map[string]bool // told by Describe: kept, whether stored yet or not

	changed atomic.Bool // since it was saved
	refused *vm.Counter // descriptions that found no room
}

// Metadata describes a metric.
type Metadata struct {
	Type model.MetricType `json:"type"`
	Unit string           `json:"unit"`
	Help string           `json:"help"`
}

const (
	maxMetaNames   = 20_000 // names remembered
	maxMetaPerName = 4      // differing descriptions of one name
	maxHelpBytes   = 1024
)

func newMetaStore(refused *vm.Counter) *metaStore {
	return &metaStore{refused: refused, m: map[string][]Metadata{}, fresh: map[string]bool{}, ours: map[string]bool{}}
}

// Describe tells what a metric that is written by Batch is, for the metadata
// call.
func (s *Store) Describe(name string, m Metadata) {
	s.meta.put(name, m)
	s.meta.mu.Lock()
	defer s.meta.mu.Unlock()
	s.meta.ours[name] = true
}

// add remembers what a family of OTLP says of itself. It keeps nothing of help's
// memory.
func (m *metaStore) add(n *named, help string) {
	md := Metadata{Type: n.key.kind.promType(), Unit: n.unit, Help: help}
	m.mu.RLock()
	known := slices.Contains(m.m[n.name], md)
	m.mu.RUnlock()
	if !known {
		md.Help = strings.Clone(help)
		m.put(n.name, md)
	}
}

func (m *metaStore) put(name string, md Metadata) {
	md.Help = strings.ToValidUTF8(md.Help, "\uFFFD")
	if len(md.Help) > maxHelpBytes {
		md.Help = strings.ToValidUTF8(md.Help[:maxHelpBytes], "")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list, known := m.m[name]
	if slices.Contains(list, md) {
		return
	}
	if len(list) >= maxMetaPerName || !known && len(m.m) >= maxMetaNames {
		m.refused.Inc()
		return
	}
	m.m[name] = append(list, md)
	m.fresh[name] = true
	m.changed.Store(true)
}

// list returns a copy of up to limit names (all if limit is negative) with up
// to perName descriptions each; only that of name if it is not empty.
func (m *metaStore) list(name string, limit, perName int) map[string][]Metadata {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := make([]string, 0, len(m.m))
	for n := range m.m {
		if name == "" || n == name {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	out := map[string][]Metadata{}
	for _, n := range names {
		if limit >= 0 && len(out) >= limit {
			break
		}
		list := m.m[n]
		if perName > 0 && len(list) > perName {
			list = list[:perName]
		}
		out[n] = slices.Clone(list)
	}
	return out
}

// promType is the type in Prometheus's words.
func (k kind) promType() model.MetricType {
	switch k {
	case kindGauge, kindUpDown, kindUpDownDelta:
		return model.MetricTypeGauge
	case kindCounter, kindCounterDelta:
		return model.MetricTypeCounter
	case kindHistogram, kindHistogramDelta, kindExponential, kindExponentialDelta:
		return model.MetricTypeHistogram
	case kindSummary:
		return model.MetricTypeSummary
	}
	return model.MetricTypeUnknown
}
