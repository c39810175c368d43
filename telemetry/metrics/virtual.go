package metrics

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"
)

// Dashboards written for classic histograms ask for NAME_count, NAME_sum and
// NAME_bucket{le}. Where NAME is stored native these series do not exist; the
// queryable makes them while a query reads, so that ingest pays nothing for
// them and they cost as much as classic ones to read (bucketset.go).
//
// They are made for who asks for them by name: __name__ equal to such a name, or
// a regular expression that matches it, as http_.+ does, which also matches the
// histogram itself and gets both. A selector without a name, or with an expression
// that matches whatever a name may be (.+), gets the stored series only: {job="x"}
// would be ten times as long otherwise.

// queryable serves the store with virtual classic series.
type queryable struct {
	db   *tsdb.DB
	meta *metaStore
	// cells bounds the bucket values that one selector may hold in memory.
	cells int
}

func (s *Store) queryable() storage.SampleAndChunkQueryable {
	return &queryable{db: s.db, meta: s.meta, cells: s.opts.Query.MaxSamples}
}

// Querier returns a querier over both kinds of series.
func (q *queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	inner, err := q.db.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &querier{Querier: inner, q: q, mint: mint, maxt: maxt}, nil
}

// ChunkQuerier returns the stored series only: only remote read would use it,
// and that is not served.
func (q *queryable) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return q.db.ChunkQuerier(mint, maxt)
}

type querier struct {
	storage.Querier
	q          *queryable
	mint, maxt int64
}

// part is which classic series of a histogram a name asks for.
type part int

const (
	partCount part = iota
	partSum
	partBucket
)

var partSuffix = [...]string{partCount: "_count", partSum: "_sum", partBucket: "_bucket"}

// splitClassic returns the histogram and part that a classic name stands for.
func splitClassic(name string) (base string, p part, ok bool) {
	for p, suffix := range partSuffix {
		if base, ok := strings.CutSuffix(name, suffix); ok && base != "" {
			return base, part(p), true
		}
	}
	return "", 0, false
}

// asked returns the virtual series that matchers ask for by name, and the
// matchers without the name.
func (m *metaStore) asked(matchers []*labels.Matcher) (virtual []virtualName, rest []*labels.Matcher) {
	var named []*labels.Matcher
	for _, mt := range matchers {
		if mt.Name == nameLabel {
			named = append(named, mt)
		} else {
			rest = append(rest, mt)
		}
	}
	matches := func(name string) bool {
		return !slices.ContainsFunc(named, func(mt *labels.Matcher) bool { return !mt.Matches(name) })
	}
	for _, mt := range named {
		var names []string
		switch mt.Type {
		case labels.MatchEqual:
			names = []string{mt.Value}
		case labels.MatchRegexp:
			names = mt.SetMatches()
		}
		if len(names) == 0 {
			continue
		}
		for _, name := range names {
			if base, p, ok := splitClassic(name); ok && matches(name) && m.maybeHistogram(base) {
				virtual = append(virtual, virtualName{name, base, p})
			}
		}
		return virtual, rest
	}
	if !slices.ContainsFunc(named, func(mt *labels.Matcher) bool { return mt.Type == labels.MatchRegexp }) {
		return nil, rest // open: {job="x"}, or all but one name
	}
	if matches(noName) {
		return nil, rest // as open: .+
	}
	for _, base := range m.histograms() {
		for p, suffix := range partSuffix {
			if name := base + suffix; matches(name) {
				virtual = append(virtual, virtualName{name, base, part(p)})
			}
		}
	}
	return virtual, rest
}

// noName is what no metric is called: an expression that matches it is one for
// any name.
const noName = "\x00"

// virtualName is a virtual series name with the histogram and the part of it
// that it stands for.
type virtualName struct {
	name, base string
	part       part
}

// Select returns the stored series that match and the virtual ones.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	asked, rest := q.q.meta.asked(matchers)
	if len(asked) == 0 {
		return q.Querier.Select(ctx, sorted, hints, matchers...)
	}
	limit := 0
	if hints != nil {
		limit = hints.Limit
	}
	// Stored series win where both exist, sample by sample: their set is first.
	sets := []storage.SeriesSet{q.Querier.Select(ctx, true, hints, matchers...)}
	for _, v := range asked {
		sets = append(sets, q.classic(ctx, hints, v, rest))
	}
	return storage.NewMergeSeriesSet(sets, limit, storage.ChainedSeriesMerge)
}

// lookupRange is how far back from the end of the asked range, or from the
// newest sample, the series and label calls look for the buckets of virtual
// series, in milliseconds: they are found in samples only.
const lookupRange = 3_600_000

// classic returns the virtual series of one name, sorted by labels.
func (q *querier) classic(ctx context.Context, hints *storage.SelectHints, v virtualName, rest []*labels.Matcher) storage.SeriesSet {
	matchers := make([]*labels.Matcher, 0, len(rest)+1)
	var le []*labels.Matcher
	for _, m := range rest {
		if m.Name == leLabel {
			le = append(le, m)
			continue
		}
		matchers = append(matchers, m)
	}
	if v.part != partBucket {
		for _, m := range le {
			if !m.Matches("") {
				return storage.EmptySeriesSet()
			}
		}
	}
	matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, nameLabel, v.base))

	lookup := hints != nil && hints.Func == "series" // wants labels, gets no samples
	inner := storage.SelectHints{Start: q.mint, End: q.maxt}
	if hints != nil {
		inner = *hints
		inner.Limit = 0 // the answer is cut after it was made
	}
	if lookup {
		inner.Func = ""
		inner.End = min(inner.End, q.q.db.Head().MaxTime()) // the range of all time is asked for mostly
		inner.Start = max(inner.Start, inner.End-lookupRange)
	}
	set := q.Querier.Select(ctx, true, &inner, matchers...)
	if v.part == partBucket {
		return newBucketSet(ctx, set, v.name, v.base, le, q.q.cells, lookup)
	}
	return &scalarSet{SeriesSet: set, name: v.name, part: v.part}
}

// LabelValues adds the names of virtual series, and their le values.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values, warnings, err := q.Querier.LabelValues(ctx, name, hints, matchers...)
	if err != nil {
		return nil, warnings, err
	}
	var more []string
	if name == nameLabel && !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == nameLabel }) {
		for _, v := range values {
			if q.q.meta.isHistogram(v) {
				for _, suffix := range partSuffix {
					more = append(more, v+suffix)
				}
			}
		}
		return mergeNames(values, more, hints), warnings, nil
	}
	asked, rest := q.q.meta.asked(matchers)
	if name == leLabel && len(asked) == 0 && !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == nameLabel && !m.Matches(noName) }) {
		more, err = q.allBounds(ctx, rest)
		return mergeNames(values, more, hints), warnings, err
	}
	for _, v := range asked {
		found, w, err := q.classicLabelValues(ctx, name, v, rest)
		warnings.Merge(w)
		if err != nil {
			return nil, warnings, err
		}
		more = append(more, found...)
	}
	return mergeNames(values, more, hints), warnings, nil
}

// classicLabelValues returns the values of a label of one virtual name.
func (q *querier) classicLabelValues(ctx context.Context, label string, v virtualName, rest []*labels.Matcher) ([]string, annotations.Annotations, error) {
	if label == nameLabel { // of one series or many
		set := q.classic(ctx, &storage.SelectHints{Start: q.mint, End: q.maxt, Func: "series"}, v, rest)
		if set.Next() {
			return []string{v.name}, set.Warnings(), set.Err()
		}
		return nil, set.Warnings(), set.Err()
	}
	if v.part != partBucket {
		matchers := append(slices.Clone(rest), labels.MustNewMatcher(labels.MatchEqual, nameLabel, v.base))
		return q.Querier.LabelValues(ctx, label, nil, matchers...)
	}
	set := q.classic(ctx, &storage.SelectHints{Start: q.mint, End: q.maxt, Func: "series"}, v, rest)
	seen := map[string]bool{}
	for set.Next() {
		if v := set.At().Labels().Get(label); v != "" {
			seen[v] = true
		}
	}
	var out []string
	for v := range seen {
		out = append(out, v)
	}
	return out, set.Warnings(), set.Err()
}

// LabelNames adds the label names of virtual series.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, warnings, err := q.Querier.LabelNames(ctx, hints, matchers...)
	if err != nil {
		return nil, warnings, err
	}
	asked, rest := q.q.meta.asked(matchers)
	var more []string
	if len(matchers) == 0 && len(q.q.meta.histograms()) > 0 {
		more = append(more, leLabel)
	}
	for _, v := range asked {
		found, w, err := q.Querier.LabelNames(ctx, nil, append(slices.Clone(rest), labels.MustNewMatcher(labels.MatchEqual, nameLabel, v.base))...)
		warnings.Merge(w)
		if err != nil {
			return nil, warnings, err
		}
		if v.part == partBucket && len(found) > 0 {
			found = append(found, leLabel)
		}
		more = append(more, found...)
	}
	return mergeNames(names, more, hints), warnings, nil
}

// mergeNames returns both lists as one sorted set within the limit.
func mergeNames(a, b []string, hints *storage.LabelHints) []string {
	if len(b) > 0 {
		a = append(slices.Clone(a), b...)
		slices.Sort(a)
		a = slices.Compact(a)
	}
	if hints != nil && hints.Limit > 0 && len(a) > hints.Limit {
		a = a[:hints.Limit]
	}
	return a
}

// isHistogram says whether a name is known to be a histogram.
func (m *metaStore) isHistogram(name string) bool {
	h, _ := m.kind(name)
	return h
}

// maybeHistogram is isHistogram, or true for a name that nothing is known of,
// as after a restart.
func (m *metaStore) maybeHistogram(name string) bool {
	h, known := m.kind(name)
	return h || !known
}

// histograms returns the names that are known to be histograms.
func (m *metaStore) histograms() (names []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for name, list := range m.m {
		if slices.ContainsFunc(list, isHistogram) {
			names = append(names, name)
		}
	}
	return names
}

func isHistogram(d Metadata) bool { return d.Type == kindHistogram.promType() }

func (m *metaStore) kind(name string) (histogram, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list, known := m.m[name]
	return slices.ContainsFunc(list, isHistogram), known
}

// rename returns lbls under another metric name.
func rename(lbls labels.Labels, name string) labels.Labels {
	return labels.NewBuilder(lbls).Set(nameLabel, name).Labels()
}
