package metrics

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// exemplarQueryable serves the exemplars of native histograms under the classic
// names too.
type exemplarQueryable struct {
	db   *tsdb.DB
	meta *metaStore
}

func (s *Store) exemplarQueryable() storage.ExemplarQueryable {
	return exemplarQueryable{s.db, s.meta}
}

// ExemplarQuerier returns a querier of the ring of exemplars.
func (q exemplarQueryable) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	inner, err := q.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return exemplarQuerier{ctx, inner, q.db, q.meta}, nil
}

// exemplarQuerier is one query, which ends with ctx.
type exemplarQuerier struct {
	ctx   context.Context
	inner storage.ExemplarQuerier
	db    *tsdb.DB
	meta  *metaStore
}

// Select returns stored exemplars, and for NAME_bucket those of a native NAME
// under that name, each with the le of the bucket in which it was counted.
func (q exemplarQuerier) Select(start, end int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	out, err := q.inner.Select(start, end, matchers...)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, ms := range matchers {
		asked, rest := q.meta.asked(ms)
		for _, v := range asked {
			if v.part != partBucket {
				continue
			}
			native := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, nameLabel, v.base)}
			var le []*labels.Matcher
			for _, m := range rest {
				if m.Name == leLabel {
					le = append(le, m)
				} else {
					native = append(native, m)
				}
			}
			found, err := q.inner.Select(start, end, native)
			errs = append(errs, err)
			for _, r := range found {
				byLe, err := q.split(r, v, le)
				errs = append(errs, err)
				out = append(out, byLe...)
			}
		}
	}
	return out, errors.Join(errs...)
}

// split returns the exemplars of a native series by the bucket in which they
// were counted, in the order of the bounds, without those that le refuses.
func (q exemplarQuerier) split(r exemplar.QueryResult, v virtualName, le []*labels.Matcher) ([]exemplar.QueryResult, error) {
	if len(r.Exemplars) == 0 {
		return nil, nil
	}
	over, err := q.bounds(r, v.base)
	if err != nil {
		return nil, err
	}
	byBound := map[float64][]exemplar.Exemplar{}
	for _, e := range r.Exemplars {
		b := over.bound(e)
		byBound[b] = append(byBound[b], e)
	}
	bounds := make([]float64, 0, len(byBound))
	for b := range byBound {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	var out []exemplar.QueryResult
	lb := labels.NewBuilder(r.SeriesLabels).Set(nameLabel, v.name)
	for _, b := range bounds {
		text := formatBound(b)
		if !slices.ContainsFunc(le, func(m *labels.Matcher) bool { return !m.Matches(text) }) {
			out = append(out, exemplar.QueryResult{SeriesLabels: lb.Set(leLabel, text).Labels(), Exemplars: byBound[b]})
		}
	}
	return out, nil
}

// boundsOver are the bounds that a series had over time.
type boundsOver []struct {
	until  int64 // the last sample with them
	bounds []float64
}

// bounds reads those of a native series while it got these exemplars, and until
// the export after the last.
func (q exemplarQuerier) bounds(r exemplar.QueryResult, base string) (over boundsOver, err error) {
	from, to := r.Exemplars[0].Ts, r.Exemplars[len(r.Exemplars)-1].Ts
	inner, err := q.db.Querier(from, to+lookback.Milliseconds())
	if err != nil {
		return nil, err
	}
	defer inner.Close()
	var matchers []*labels.Matcher
	r.SeriesLabels.Range(func(l labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	set := inner.Select(q.ctx, false, nil, matchers...)
	steps := leSteps(base)
	var fh histogram.FloatHistogram
	for set.Next() {
		if set.At().Labels().Len() != r.SeriesLabels.Len() {
			continue // has more labels
		}
		it := set.At().Iterator(nil)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if vt == chunkenc.ValFloat {
				continue
			}
			t, h := it.AtFloatHistogram(&fh)
			if isStale(h) {
				continue
			}
			bounds := boundsOf(h, steps)
			if n := len(over); n == 0 || !slices.Equal(over[n-1].bounds, bounds) {
				over = append(over, struct {
					until  int64
					bounds []float64
				}{t, bounds})
			} else {
				over[n-1].until = t
			}
			if t > to {
				break
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	return over, set.Err()
}

// boundsOf returns the bounds of the virtual buckets of a histogram, without
// +Inf.
func boundsOf(h *histogram.FloatHistogram, steps []leStep) []float64 {
	if h.UsesCustomBuckets() {
		return h.CustomValues // which nobody changes
	}
	bounds := make([]float64, 0, len(steps))
	for _, s := range steps {
		if _, exact := s.index(h.Schema); exact {
			bounds = append(bounds, s.bound)
		}
	}
	return bounds
}

// bound returns the upper bound of the bucket that an exemplar was counted in:
// that of the first sample from then on, mostly.
func (o boundsOver) bound(e exemplar.Exemplar) float64 {
	if len(o) == 0 {
		return math.Inf(1)
	}
	at := 0
	for at+1 < len(o) && o[at].until < e.Ts {
		at++
	}
	if i, _ := slices.BinarySearch(o[at].bounds, e.Value); i < len(o[at].bounds) {
		return o[at].bounds[i]
	}
	return math.Inf(1)
}
