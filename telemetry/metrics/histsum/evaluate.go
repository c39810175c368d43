package histsum

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

// evaluator evaluates parts at the steps of one query. Times are Unix
// milliseconds.
type evaluator struct {
	e                *Engine
	from             storage.ChunkQueryable
	start, end, step int64
}

// eval returns the result of a part: numbers for each group, in the order in
// which the store has the first series of each, with a stale marker at each step
// at which there is nothing.
func (ev *evaluator) eval(ctx context.Context, p part) ([]result, error) {
	q, err := ev.from.ChunkQuerier(ev.start-p.window.Milliseconds()+1, ev.end)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	src, err := newSource(ctx, q, p, ev.start, ev.end, ev.step)
	if err != nil {
		return nil, err
	}
	steps := int((ev.end-ev.start)/ev.step) + 1
	if n := len(src.groups); n > 0 && steps > ev.e.cells/n {
		return nil, errIrregular
	}
	w := &work{
		evaluator: ev, part: p, steps: steps, src: src,
		before: ev.e.kept.get(keptKey{p.text, ev.step, ev.start % ev.step}),
		groups: make([]*keptGroup, len(src.groups)),
	}
	ev.e.helpers.run(len(src.groups), func() { w.run(ctx) })
	if w.err != nil {
		return nil, w.err
	}
	after := &panel{key: w.before.key, start: ev.start, groups: make(map[string]*keptGroup, len(w.groups))}
	var out []result
	for i, g := range w.groups {
		m := src.groups[i]
		after.groups[m.key] = g
		if g.numbers.any() {
			out = append(out, result{m.labels, g.numbers})
		}
	}
	ev.e.kept.put(after)
	return out, nil
}

// work is a part that is evaluated by one or several goroutines, each a group at
// a time.
type work struct {
	*evaluator
	part   part
	steps  int
	before *panel
	groups []*keptGroup // by number; each is written by who evaluates it

	mu  sync.Mutex
	src *source
	err error // the first
}

// take is source.take, and notes the error of the group before.
func (w *work) take(ctx context.Context, err error, into [][]piece) (group int, series [][]piece) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && w.err == nil {
		if group, series, err = w.src.take(into[:0]); err == nil {
			return group, series
		}
	}
	if w.err == nil {
		w.err = err
	}
	return -1, into
}

// run evaluates groups until none is left.
func (w *work) run(ctx context.Context) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	var err error
	var i int
	for {
		if i, s.series = w.take(ctx, err, s.series); i < 0 {
			break
		}
		w.groups[i], err = w.one(ctx, s, w.before.groups[w.src.groups[i].key])
	}
	s.forget()
}

// scratch is memory for evaluating groups.
type scratch struct {
	series [][]piece
	rows   rows
	group  group

	quantiler quantiler
}

var scratches = sync.Pool{New: func() any { return &scratch{} }}

// forget drops what points into the store.
func (s *scratch) forget() {
	s.series = s.series[:cap(s.series)]
	for _, pieces := range s.series {
		clear(pieces[:cap(pieces)])
	}
	s.series = s.series[:0]
}

// one returns what is asked of one group, whose series are s.series, at each step.
func (w *work) one(ctx context.Context, s *scratch, before *keptGroup) (*keptGroup, error) {
	kept := w.e.kept
	g := &keptGroup{make([]uint64, w.steps), make(numbers, w.steps)}
	window := w.part.window.Milliseconds()
	digest(kept.seed, s.series)
	windows(g.sums, s.series, w.start, w.step, window)
	first, last := w.before.stale(before, w.start, w.step, g.sums, g.numbers)
	kept.reused.Add(uint64(w.steps - max(last-first+1, 0)))
	if first > last {
		return g, nil
	}
	kept.computed.Add(uint64(last - first + 1))
	start := w.start + int64(first)*w.step
	s.group.reset(last - first + 1)
	for _, pieces := range s.series {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.add(w, pieces, start); err != nil {
			return nil, err
		}
	}
	return g, s.numbers(w.part, start, w.step, g.numbers[first:last+1])
}

// add adds a series to the group, whose first step is at start.
func (s *scratch) add(w *work, pieces []piece, start int64) error {
	r, g := &s.rows, &s.group
	window := w.part.window.Milliseconds()
	buckets := w.part.what == "histogram_quantile"
	if err := r.read(pieces, start-window+1, start+int64(g.steps-1)*w.step, buckets, w.e.cells); err != nil {
		return err
	}
	if len(r.t) == 0 {
		return nil
	}
	if err := g.cover(r, w.e.cells); err != nil {
		return err
	}
	divisor := 1.0
	if w.part.rate {
		divisor = float64(window) / 1000
	}
	from, to := 0, -1 // the rows in the window
	for step := range g.steps {
		end := start + int64(step)*w.step
		begin := end - window
		for to+1 < len(r.t) && r.t[to+1] <= end {
			to++
		}
		for from < len(r.t) && r.t[from] <= begin {
			from++
		}
		if to > from {
			g.add(step, r, from, to, begin, end, divisor)
		}
	}
	return nil
}

// numbers turns the group's histograms into what is asked of them, in out.
func (s *scratch) numbers(p part, start, every int64, out numbers) error {
	g := &s.group
	for step := range out {
		n := &out[step]
		n.t = start + int64(step)*every
		if !g.seen[step] {
			n.v = math.Float64frombits(value.StaleNaN)
			continue
		}
		switch p.what {
		case "histogram_count":
			n.v = g.count[step] + g.countC[step]
		case "histogram_sum":
			n.v = g.sum[step] + g.sumC[step]
		case "histogram_quantile":
			v, err := s.quantiler.of(p.quantile, g, step)
			if err != nil {
				return err
			}
			n.v = v
		default:
			return fmt.Errorf("BUG: histsum evaluates %s", p.what)
		}
	}
	return nil
}
