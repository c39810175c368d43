package metrics

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
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
// They are made for who asks by name: __name__ equal to such a name, or a
// regular expression that is a list of names. A selector without a name, or
// with an open expression, gets the stored series only: {job="x"} would be ten
// times as long otherwise.

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

// namesOf returns the metric names that matchers ask for, and the matchers
// without the name; nil if they do not ask by name.
func namesOf(matchers []*labels.Matcher) (names []string, rest []*labels.Matcher) {
	for i, m := range matchers {
		if m.Name != nameLabel {
			continue
		}
		switch m.Type {
		case labels.MatchEqual:
			names = []string{m.Value}
		case labels.MatchRegexp:
			names = m.SetMatches()
		}
		if len(names) > 0 {
			return names, slices.Delete(slices.Clone(matchers), i, i+1)
		}
	}
	return nil, matchers
}

// Select returns the stored series that match and the virtual ones.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	names, rest := namesOf(matchers)
	var virtual []storage.SeriesSet
	for _, name := range names {
		if base, p, ok := splitClassic(name); ok && q.q.meta.maybeHistogram(base) {
			virtual = append(virtual, q.classic(ctx, hints, name, base, p, rest))
		}
	}
	if virtual == nil {
		return q.Querier.Select(ctx, sorted, hints, matchers...)
	}
	limit := 0
	if hints != nil {
		limit = hints.Limit
	}
	// Stored series win where both exist, sample by sample: their set is first.
	sets := append([]storage.SeriesSet{q.Querier.Select(ctx, true, hints, matchers...)}, virtual...)
	return storage.NewMergeSeriesSet(sets, limit, storage.ChainedSeriesMerge)
}

// lookupRange is how far back from the end of the asked range, or from the
// newest sample, the series and label calls look for the buckets of virtual
// series, in milliseconds: they are found in samples only.
const lookupRange = 3_600_000

// classic returns the virtual series of one name, sorted by labels.
func (q *querier) classic(ctx context.Context, hints *storage.SelectHints, name, base string, p part, rest []*labels.Matcher) storage.SeriesSet {
	matchers := make([]*labels.Matcher, 0, len(rest)+1)
	var le []*labels.Matcher
	for _, m := range rest {
		if m.Name == leLabel {
			le = append(le, m)
			continue
		}
		matchers = append(matchers, m)
	}
	if p != partBucket {
		for _, m := range le {
			if !m.Matches("") {
				return storage.EmptySeriesSet()
			}
		}
	}
	matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, nameLabel, base))

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
	if p == partBucket {
		return newBucketSet(ctx, set, name, base, le, q.q.cells, lookup)
	}
	return &scalarSet{SeriesSet: set, name: name, part: p}
}

// LabelValues adds the names of virtual series, and their le values.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values, warnings, err := q.Querier.LabelValues(ctx, name, hints, matchers...)
	if err != nil {
		return nil, warnings, err
	}
	asked, rest := namesOf(matchers)
	var more []string
	switch {
	case name == nameLabel && len(asked) == 0:
		for _, v := range values {
			if q.q.meta.isHistogram(v) {
				for _, suffix := range partSuffix {
					more = append(more, v+suffix)
				}
			}
		}
	default:
		for _, n := range asked {
			base, p, ok := splitClassic(n)
			if !ok || !q.q.meta.maybeHistogram(base) {
				continue
			}
			found, w, err := q.classicLabelValues(ctx, name, n, base, p, rest)
			warnings.Merge(w)
			if err != nil {
				return nil, warnings, err
			}
			more = append(more, found...)
		}
	}
	return mergeNames(values, more, hints), warnings, nil
}

// classicLabelValues returns the values of a label of one virtual name.
func (q *querier) classicLabelValues(ctx context.Context, label, name, base string, p part, rest []*labels.Matcher) ([]string, annotations.Annotations, error) {
	if p != partBucket && label != nameLabel {
		matchers := append(slices.Clone(rest), labels.MustNewMatcher(labels.MatchEqual, nameLabel, base))
		return q.Querier.LabelValues(ctx, label, nil, matchers...)
	}
	set := q.classic(ctx, &storage.SelectHints{Start: q.mint, End: q.maxt, Func: "series"}, name, base, p, rest)
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
	asked, rest := namesOf(matchers)
	var more []string
	for _, n := range asked {
		base, p, ok := splitClassic(n)
		if !ok || !q.q.meta.maybeHistogram(base) {
			continue
		}
		found, w, err := q.Querier.LabelNames(ctx, nil, append(slices.Clone(rest), labels.MustNewMatcher(labels.MatchEqual, nameLabel, base))...)
		warnings.Merge(w)
		if err != nil {
			return nil, warnings, err
		}
		if p == partBucket && len(found) > 0 {
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

func (m *metaStore) kind(name string) (histogram, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list, known := m.m[name]
	return slices.ContainsFunc(list, func(d Metadata) bool { return d.Type == kindHistogram.promType() }), known
}

// exemplarQueryable serves the exemplars of native histograms under the classic
// names too.
type exemplarQueryable struct{ db *tsdb.DB }

func (s *Store) exemplarQueryable() storage.ExemplarQueryable { return exemplarQueryable{s.db} }

// ExemplarQuerier returns a querier of the ring of exemplars.
func (q exemplarQueryable) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	inner, err := q.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return exemplarQuerier{inner}, nil
}

type exemplarQuerier struct{ inner storage.ExemplarQuerier }

// Select returns stored exemplars, and for NAME_bucket those of a native NAME
// under that name, without le: each lies in one bucket, but its series is all.
func (q exemplarQuerier) Select(start, end int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	out, err := q.inner.Select(start, end, matchers...)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, ms := range matchers {
		names, rest := namesOf(ms)
		for _, name := range names {
			base, p, ok := splitClassic(name)
			if !ok || p != partBucket {
				continue
			}
			native := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, nameLabel, base)}
			for _, m := range rest {
				if m.Name != leLabel {
					native = append(native, m)
				}
			}
			found, err := q.inner.Select(start, end, native)
			errs = append(errs, err)
			for _, r := range found {
				r.SeriesLabels = rename(r.SeriesLabels, name)
				out = append(out, r)
			}
		}
	}
	return out, errors.Join(errs...)
}

// rename returns lbls under another metric name.
func rename(lbls labels.Labels, name string) labels.Labels {
	return labels.NewBuilder(lbls).Set(nameLabel, name).Labels()
}
