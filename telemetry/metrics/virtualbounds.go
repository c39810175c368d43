package metrics

import (
	"context"
	"math"
	"strings"

	"github.com/grafana/regexp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// allBounds returns the le values of the virtual buckets of all histograms
// that the matchers, none of them on the name, leave over. They are those of the
// chunks of the last hour of the range, of which it reads the first sample only:
// within a chunk bounds do not change.
func (q *querier) allBounds(ctx context.Context, rest []*labels.Matcher) ([]string, error) {
	names := q.q.meta.histograms()
	if len(names) == 0 {
		return nil, nil
	}
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name)
	}
	matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, nameLabel, strings.Join(names, "|"))}
	var le []*labels.Matcher
	for _, m := range rest {
		if m.Name == leLabel {
			le = append(le, m)
		} else {
			matchers = append(matchers, m)
		}
	}
	end := min(q.maxt, q.q.db.Head().MaxTime())
	start := max(q.mint, end-lookupRange)
	inner, err := q.q.db.ChunkQuerier(start, end)
	if err != nil {
		return nil, err
	}
	defer inner.Close()
	set := inner.Select(ctx, false, &storage.SelectHints{Start: start, End: end, DisableTrimming: true}, matchers...)
	seen := map[float64]bool{}
	steps := map[string][]leStep{}
	var (
		all     chunks.Iterator
		samples chunkenc.Iterator
		fh      histogram.FloatHistogram
	)
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		series := set.At()
		name := series.Labels().Get(nameLabel)
		if steps[name] == nil {
			steps[name] = leSteps(name)
		}
		for all = series.Iterator(all); all.Next(); {
			samples = all.At().Chunk.Iterator(samples)
			if vt := samples.Next(); vt == chunkenc.ValNone || vt == chunkenc.ValFloat {
				continue
			}
			_, h := samples.AtFloatHistogram(&fh)
			if isStale(h) {
				continue
			}
			seen[math.Inf(1)] = true
			for _, b := range boundsOf(h, steps[name]) {
				seen[b] = true
			}
		}
		if err := all.Err(); err != nil {
			return nil, err
		}
	}
	var out []string
next:
	for b := range seen {
		text := formatBound(b)
		for _, m := range le {
			if !m.Matches(text) {
				continue next
			}
		}
		out = append(out, text)
	}
	return out, set.Err()
}
