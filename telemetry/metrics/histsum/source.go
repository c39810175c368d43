package histsum

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"reflect"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// piece is a chunk of a series.
type piece struct {
	min, max int64 // times of the first and the last sample
	chunk    []byte
	// it, if not nil, has the samples of the chunk that may be seen: a commit is
	// under way.
	it chunkenc.Iterator
	// sum stands for the content: equal ones are equal.
	sum uint64
}

// members are the series of one group, in the order of the store.
type members struct {
	labels labels.Labels
	key    string // of labels
	series []storage.ChunkSeries
}

// source hands out the groups of a part, one after the other. Its reading is not
// safe for concurrent use: the querier's is not.
type source struct {
	groups []*members
	next   int
	it     chunkenc.Iterator // is used again
	chunks chunks.Iterator   // too
	list   []chunkenc.Chunk  // of one series
}

// newSource lists the series by the labels that are kept.
func newSource(ctx context.Context, q storage.ChunkQuerier, p part, start, end, step int64) (*source, error) {
	window := p.window.Milliseconds()
	hints := &storage.SelectHints{
		Start: start - window + 1, End: end, Step: step, Range: window,
		Func: p.call, Grouping: p.by, By: true,
		DisableTrimming: true, // which writes the chunks at the ends anew
	}
	set := q.Select(ctx, false, hints, p.matchers...)
	s := &source{}
	byLabels := map[string]*members{}
	lb := labels.NewBuilder(labels.EmptyLabels())
	for set.Next() {
		series := set.At()
		lb.Reset(series.Labels())
		lb.Keep(p.by...)
		l := lb.Labels()
		key := l.String()
		m := byLabels[key]
		if m == nil {
			m = &members{labels: l, key: key}
			byLabels[key] = m
			s.groups = append(s.groups, m)
		}
		m.series = append(m.series, series)
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	if len(set.Warnings()) > 0 {
		return nil, errIrregular
	}
	return s, nil
}

// plain is the type of chunks that nobody writes to.
var plain = reflect.TypeOf(chunkenc.NewHistogramChunk())

// complete is the type of the iterators over all samples of a chunk.
var complete = reflect.TypeOf(chunkenc.NewHistogramChunk().Iterator(nil))

// take returns the number of the next group and its series in pieces, which are
// appended to into; none is left when it returns -1. The pieces may be read by
// another goroutine, until the querier is closed.
func (s *source) take(into [][]piece) (group int, series [][]piece, err error) {
	if s.next == len(s.groups) {
		return -1, into, nil
	}
	group = s.next
	s.next++
	for _, m := range s.groups[group].series {
		var pieces []piece
		if n := len(into); n < cap(into) {
			pieces = into[:n+1][n][:0] // what was there before is used again
		}
		if pieces, err = s.pieces(m, pieces); err != nil {
			return -1, into, err
		}
		into = append(into, pieces)
	}
	return group, into, nil
}

func (s *source) pieces(m storage.ChunkSeries, into []piece) ([]piece, error) {
	s.chunks = m.Iterator(s.chunks)
	s.list = s.list[:0]
	for s.chunks.Next() {
		meta := s.chunks.At()
		if meta.Chunk.Encoding() != chunkenc.EncHistogram {
			return into, errIrregular
		}
		if n := len(into); n > 0 && meta.MinTime <= into[n-1].max {
			return into, errIrregular // the store has merged those that overlap
		}
		into = append(into, piece{min: meta.MinTime, max: meta.MaxTime, chunk: meta.Chunk.Bytes()})
		s.list = append(s.list, meta.Chunk)
	}
	// Samples of a commit under way are a series' last: before a chunk of the
	// head of which all may be seen there are none.
	for i := len(s.list) - 1; i >= 0; i-- {
		if reflect.TypeOf(s.list[i]) == plain {
			continue
		}
		if s.it = s.list[i].Iterator(s.it); reflect.TypeOf(s.it) == complete {
			break
		}
		into[len(into)-len(s.list)+i].it, s.it = s.it, nil
	}
	return into, s.chunks.Err()
}

// digest fills in the sums.
func digest(seed maphash.Seed, series [][]piece) {
	for _, pieces := range series {
		for i := range pieces {
			if p := &pieces[i]; p.it != nil {
				p.sum = rand.Uint64()
			} else {
				p.sum = maphash.Bytes(seed, p.chunk)
			}
		}
	}
}
