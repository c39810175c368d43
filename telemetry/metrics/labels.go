package metrics

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// label is one label of a series being built.
type label struct{ name, value string }

const (
	nameLabel     = "__name__"
	leLabel       = "le"
	quantileLabel = "quantile"
	targetInfo    = "target_info"

	// maxLabels, maxNameBytes and maxValueBytes bound what one series may
	// hold. Longer values are cut off and counted: they are URLs and messages
	// that were meant for a span.
	maxLabels     = 64
	maxNameBytes  = 256
	maxValueBytes = 2048
)

// Resource attributes that stand in labels of their own, and not in
// target_info.
const (
	attrServiceName      = "service.name"
	attrServiceNamespace = "service.namespace"
	attrServiceInstance  = "service.instance.id"
)

// identityLabels say who a series is from. A point attribute that would take
// one of these names is kept as exported_NAME, as a Prometheus scrape does it:
// nobody speaks for another node or group by an attribute.
var identityLabels = []string{binnacle.LabelJob, binnacle.LabelInstance, binnacle.LabelGroup, binnacle.LabelProcess}

// metricNamer follows the OpenTelemetry-to-Prometheus rules: underscores, unit
// and type suffixes.
var metricNamer = otlptranslator.MetricNamer{WithMetricSuffixes: true}

var labelNamer = otlptranslator.LabelNamer{}

// metricName returns the Prometheus name of a metric. A colon becomes an
// underscore: names with colons are the manager's roll-ups, which gates take
// for evidence, so no sender may write them.
func metricName(k familyKey) (string, error) {
	return metricNamer.Build(otlptranslator.Metric{
		Name: strings.ReplaceAll(k.name, ":", "_"),
		Unit: k.unit,
		Type: k.kind.translatorType(),
	})
}

func (k kind) translatorType() otlptranslator.MetricType {
	switch k {
	case kindGauge:
		return otlptranslator.MetricTypeGauge
	case kindCounter, kindCounterDelta:
		return otlptranslator.MetricTypeMonotonicCounter
	case kindUpDown, kindUpDownDelta:
		return otlptranslator.MetricTypeNonMonotonicCounter
	case kindHistogram, kindHistogramDelta:
		return otlptranslator.MetricTypeHistogram
	case kindExponential, kindExponentialDelta:
		return otlptranslator.MetricTypeExponentialHistogram
	case kindSummary:
		return otlptranslator.MetricTypeSummary
	}
	return otlptranslator.MetricTypeUnknown
}

// resourceLabels splits the attributes of a resource into the labels that all
// its series carry and those of its target_info, which is nil if there is
// nothing beyond the identity to tell.
func resourceLabels(attrs wire.Attrs) (base, info []label) {
	var job, namespace string
	var rest []label
	for _, a := range attrs {
		v := a.Value
		switch a.Key {
		case attrServiceName:
			job = v.String()
		case attrServiceNamespace:
			namespace = v.String()
		case attrServiceInstance:
			base = addFirst(base, label{binnacle.LabelInstance, v.String()})
		case binnacle.AttrGroup:
			base = addFirst(base, label{binnacle.LabelGroup, v.String()})
		case binnacle.AttrProcess:
			base = addFirst(base, label{binnacle.LabelProcess, v.String()})
		default:
			rest = append(rest, label{strings.Clone(a.Key), v.String()})
		}
	}
	if namespace != "" {
		job = namespace + "/" + job
	}
	if job != "" {
		base = append(base, label{binnacle.LabelJob, job})
	}
	if len(rest) == 0 || len(base) == 0 {
		return base, nil
	}
	return base, rest
}

// addFirst adds l unless the list has its name: of a key that stands twice the
// first counts, which is the one that attribution has set.
func addFirst(ls []label, l label) []label {
	if get(ls, l.name) != "" {
		return ls
	}
	return append(ls, l)
}

// get returns the value of a label in a list.
func get(ls []label, name string) string {
	for _, l := range ls {
		if l.name == name {
			return l.value
		}
	}
	return ""
}

// labelBuilder makes label sets. It is the slow path: once for each series.
type labelBuilder struct {
	list      []label
	scratch   labels.ScratchBuilder
	truncated int // values cut off, for the counter
	names     [numNameRules]map[string]string
	orders    [2]labelOrder // of series without and with an extra label
}

// labelName is the function of that name with what it found before: senders
// have few attribute keys and many series. The keys are the builder's own copies.
func (b *labelBuilder) labelName(key string, rule nameRule) (string, error) {
	if name, ok := b.names[rule][key]; ok {
		return name, nil
	}
	name, err := labelName(key, rule)
	if err != nil {
		return "", err
	}
	if b.names[rule] == nil || len(b.names[rule]) >= maxKnownNames {
		b.names[rule] = map[string]string{}
	}
	b.names[rule][strings.Clone(key)] = strings.Clone(name)
	return name, nil
}

// maxKnownNames bounds the attribute keys that one builder remembers.
const maxKnownNames = 256

// nameRule is what of a kind decides the label of an attribute key.
type nameRule uint8

const (
	plainNames nameRule = iota
	histogramNames
	summaryNames
	numNameRules
)

func (k kind) nameRule() nameRule {
	switch k {
	case kindHistogram, kindHistogramDelta, kindExponential, kindExponentialDelta:
		return histogramNames
	case kindSummary:
		return summaryNames
	}
	return plainNames
}

// series returns the labels of a series: the metric's name, the identity of its
// resource, and the attributes of its point with reserved ones renamed. extra
// is at most one more label (le or quantile).
func (b *labelBuilder) series(name string, base []label, attrs wire.PointAttrs, k kind, extra ...label) (labels.Labels, error) {
	b.list = b.list[:0]
	for a := range attrs.All() {
		b.list = append(b.list, label{a.Key, a.Value.View()}) // copied by build
	}
	return b.build(name, base, k, extra...)
}

// build is series with the attributes in b.list.
func (b *labelBuilder) build(name string, base []label, k kind, extra ...label) (labels.Labels, error) {
	attrs := len(b.list)
	b.list = append(append(append(b.list, base...), extra...), label{nameLabel, name})
	o := &b.orders[len(extra)]
	if !o.is(b.list, attrs, k.nameRule()) {
		if err := o.learn(b, attrs, k.nameRule()); err != nil {
			return labels.EmptyLabels(), err
		}
	}
	return b.inOrder(o)
}

// another returns what series did last, which had an extra label, with another value
// of that. Between the two b was not asked for anything else.
func (b *labelBuilder) another(value string) (labels.Labels, error) {
	b.list[len(b.list)-2].value = value // the name stands behind it, see build
	return b.inOrder(&b.orders[1])
}

// inOrder returns the labels of b.list, whose order is o.
func (b *labelBuilder) inOrder(o *labelOrder) (labels.Labels, error) {
	b.scratch.Reset()
	count := 0
	for i := 0; i < len(o.at); {
		first := o.at[i]
		value := b.list[first].value
		for i++; i < len(o.at) && o.names[o.at[i]] == o.names[first]; i++ {
			switch more := b.list[o.at[i]].value; {
			case value == "":
				value = more
			case more != "":
				value += ";" + more // as the translation rules say
			}
		}
		if value == "" {
			continue // an empty label is no label
		}
		if count++; count > maxLabels {
			return labels.EmptyLabels(), errTooManyLabels
		}
		b.scratch.Add(o.names[first], b.clean(value))
	}
	return b.scratch.Labels(), nil
}

// labelOrder is what becomes of a list of attributes and labels: their names as
// labels, and the order of these. Points of a metric mostly have the same keys in
// the same order, so that one is good for many.
type labelOrder struct {
	rule  nameRule
	attrs int    // how many of the list are attributes
	keys  []byte // of the list, one after the other
	ends  []int  // where each key ends
	names []string
	at    []int // of the list, in order; without those that cannot be labels
}

// is says whether o was learned of a list with these names.
func (o *labelOrder) is(list []label, attrs int, rule nameRule) bool {
	if o.rule != rule || o.attrs != attrs || len(o.ends) != len(list) {
		return false
	}
	begin := 0
	for i, end := range o.ends {
		if list[i].name != string(o.keys[begin:end]) {
			return false
		}
		begin = end
	}
	return true
}

// learn makes o that of b.list, whose first elements are attributes. After an
// error o is of none.
func (o *labelOrder) learn(b *labelBuilder, attrs int, rule nameRule) error {
	*o = labelOrder{rule: rule, attrs: attrs, keys: o.keys[:0], ends: o.ends[:0], names: o.names[:0], at: o.at[:0]}
	for i, l := range b.list {
		name := l.name
		if i < attrs {
			var err error
			if name, err = b.labelName(l.name, rule); err != nil {
				o.ends = o.ends[:0]
				return err
			}
		}
		o.keys = append(o.keys, l.name...)
		o.ends = append(o.ends, len(o.keys))
		o.names = append(o.names, name)
		if name != "" {
			o.at = append(o.at, i)
		}
	}
	// Attributes whose names become equal go by their keys, so that they merge the
	// same way in whatever order they came, and before a label of that name.
	slices.SortStableFunc(o.at, func(x, y int) int {
		if c := strings.Compare(o.names[x], o.names[y]); c != 0 || max(x, y) >= attrs {
			return c
		}
		return strings.Compare(b.list[x].name, b.list[y].name)
	})
	return nil
}

// clean returns v as valid UTF-8 of bounded length.
func (b *labelBuilder) clean(v string) string {
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\uFFFD")
	}
	if len(v) <= maxValueBytes {
		return v
	}
	b.truncated++
	cut := maxValueBytes
	for !utf8.RuneStart(v[cut]) {
		cut--
	}
	return v[:cut]
}

// labelName returns the label for an attribute key, or "" for one that cannot
// be a label.
func labelName(key string, rule nameRule) (string, error) {
	if len(key) > maxNameBytes {
		return "", errLongName
	}
	if key == "" {
		return "", nil
	}
	name, err := labelNamer.Build(key)
	if err != nil {
		return "", nil // nothing but punctuation
	}
	switch {
	case strings.HasPrefix(name, "__"):
		return "key" + name, nil // names of this form are the store's own
	case slices.Contains(identityLabels, name),
		name == leLabel && rule == histogramNames,
		name == quantileLabel && rule == summaryNames:
		return "exported_" + name, nil
	}
	return name, nil
}
