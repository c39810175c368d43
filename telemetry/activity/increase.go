package activity

import "github.com/binnacle-project/binnacle/otlp/wire"

// known returns the stream of a point that the cell of another reader remembers,
// or nil. The aggregator's mutex guards what is in cells, too.
func (in *ingest) known(dp *wire.Point) *stream {
	if dp.Cell == nil {
		return nil
	}
	if st, ok := dp.Cell.Of.(*stream); ok && st.sender == in.sender {
		return st
	}
	return nil
}

// advance books the next point of an explicit cumulative stream where it is what
// nearly all are: newer than the one before, in the same life and layout, and no
// count lower. It returns false, having done nothing, for all others.
func (a *Aggregator) advance(how metric, st *stream, dp *wire.Point) bool {
	in := &a.in
	n := dp.Counts.Len()
	if st.bounds == nil || len(st.n) != n || n < 2 || n != dp.Bounds.Len()+1 || st.target == nil || st.revision != in.origin.Revision {
		return false
	}
	if b, ok := a.layouts.get(dp.Bounds, how.factor); !ok || b != st.bounds {
		return false
	}
	in.times(dp.Start, dp.Time)
	if in.cur.t <= st.t || in.cur.start != st.start {
		return false
	}
	for j, before := range st.n {
		if c := dp.Counts.Uint64(j); c < before || c > maxCount {
			return false
		}
	}
	sum := seconds(dp.Sum, how.factor)
	inc := increase{buckets: in.scratch.buckets[:0], sum: max(0, sum-st.sum), coarser: st.bounds.coarser}
	for j, before := range st.n {
		if c := dp.Counts.Uint64(j); c > before {
			st.n[j] = c
			st.bounds.spread[j].tell(c-before, &inc)
		}
	}
	in.scratch.buckets = inc.buckets[:0]
	a.advanced(st, sum, 0, &inc)
	return true
}

// advanceExponential is advance for an exponential stream that keeps its scale and
// offset, as those of our own gateways do nearly always: its counts are read and
// compared in one pass, and what is new is told as it is, bucket by bucket.
func (a *Aggregator) advanceExponential(how metric, st *stream, dp *wire.Point) bool {
	in := &a.in
	if st.bounds != nil || len(st.n) == 0 || st.target == nil || st.revision != in.origin.Revision || len(dp.Negative.Counts) > 0 {
		return false
	}
	exp, first, shift := kept(int(dp.Scale), int(dp.Positive.Offset), how.factor)
	if exp != int(st.exp) || first != int(st.offset) || dp.Scale > 20 || dp.Zero < st.zero || dp.Zero > maxCount || len(dp.Positive.Counts) > maxBuckets {
		return false
	}
	in.times(dp.Start, dp.Time)
	if in.cur.t <= st.t || in.cur.start != st.start {
		return false
	}
	var ok bool
	if in.counts, ok = merged(in.counts[:0], dp.Positive.Counts, int(dp.Positive.Offset), shift); !ok || len(in.counts) < len(st.n) {
		return false
	}
	for j, before := range st.n {
		if in.counts[j] < before {
			return false
		}
	}
	for len(st.n) < len(in.counts) {
		st.n = append(st.n, 0)
	}
	sum := seconds(dp.Sum, how.factor)
	zero := dp.Zero - st.zero
	inc := increase{count: zero, zero: zero, buckets: in.scratch.buckets[:0], sum: max(0, sum-st.sum), coarser: st.coarser()}
	for j, c := range in.counts {
		d := c - st.n[j]
		switch {
		case d == 0:
			continue
		case exp == scale:
			inc.count += d
			inc.buckets = append(inc.buckets, bucket{clampIndex(first + j), d})
		default:
			tellExponential(first+j, exp, d, &inc)
		}
		st.n[j] = c
	}
	in.scratch.buckets = inc.buckets[:0]
	a.advanced(st, sum, dp.Zero, &inc)
	return true
}

// advanced notes the point in in.cur of a stream whose counts are up to date, and
// books what it brought.
func (a *Aggregator) advanced(st *stream, sum float64, zero uint64, inc *increase) {
	in := &a.in
	from := st.t
	st.t, st.sum, st.zero = in.cur.t, sum, zero
	in.newest = max(in.newest, in.cur.t)
	a.fed(st.target)
	if inc.count > 0 {
		a.increase(st.target, inc, from)
	}
}

// point books in.cur, the point dp of the stream st, if that is known already.
func (a *Aggregator) point(how metric, m *wire.Metric, dp *wire.Point, st *stream) {
	in := &a.in
	delta, known := m.Temporality == wire.Delta, true
	if st == nil {
		// A stream that changes its kind or temporality is another stream.
		form := byte(0)
		if in.cur.bounds == nil {
			form |= 1
		}
		if delta {
			form |= 2
		}
		var hash uint64
		hash, in.buf = streamHash(in.procID, m.Scope, m.Name, form, dp.Key, in.buf)
		if st = in.sender.streams[hash]; st == nil {
			if len(in.sender.streams) >= a.o.MaxStreamsPerSender || a.streams >= a.o.MaxStreams {
				a.self.overStreams.Inc()
				return
			}
			st, known = &stream{}, false
			in.sender.streams[hash] = st
			a.streams++
		}
		st.sender = in.sender
		if dp.Cell != nil {
			dp.Cell.Of = st
		}
	}
	if st.place == nil {
		st.place = a.placed(placeOf(how, dp.Key))
	}
	if st.target == nil || st.revision != in.origin.Revision {
		st.target, st.revision = a.target(st.place), in.origin.Revision
	}
	a.fed(st.target)
	var inc increase
	var from int64
	if delta {
		if !st.newDelta(in.cur.t) {
			a.self.verdicts[duplicate].Inc()
			return
		}
		inc, _ = subtract(nil, &in.cur, &in.scratch)
		if from = in.cur.start; from == 0 {
			from = max(in.began, st.t)
		}
		st.t = max(st.t, in.cur.t)
	} else {
		var v verdict
		inc, from, v = a.cumulative(st, known)
		if v > reset {
			a.self.verdicts[v].Inc()
			return
		}
		if v == reset {
			a.self.verdicts[reset].Inc()
		}
	}
	in.newest = max(in.newest, in.cur.t)
	if inc.count > 0 {
		a.increase(st.target, &inc, from)
	}
}

// newDelta reports whether the delta point of time t was not seen, and notes it.
func (st *stream) newDelta(t int64) bool {
	oldest := 0
	for i, s := range st.seen {
		if s == t {
			return false
		}
		if s < st.seen[oldest] {
			oldest = i
		}
	}
	if t < st.seen[oldest] && st.seen[oldest] != 0 {
		return false // older than what is remembered: it may have been seen
	}
	st.seen[oldest] = t
	return true
}

// cumulative takes in.cur as the next point of a cumulative stream and returns
// what happened since from.
func (a *Aggregator) cumulative(st *stream, known bool) (inc increase, from int64, v verdict) {
	in := &a.in
	cur := &in.cur
	if !known {
		// All of a new stream's counts are since its start, and not before the
		// process's last export, or the stream would have been in it.
		inc, _ = subtract(nil, cur, &in.scratch)
		from = max(cur.start, in.began)
		if in.began == 0 {
			from = a.firstFrom(cur)
		}
	} else {
		var grown bool
		inc, grown = subtract(&st.point, cur, &in.scratch)
		v = judge(&st.point, cur, grown)
		from = st.t
		switch v {
		case next:
		case reset:
			inc, _ = subtract(nil, cur, &in.scratch)
			from = max(cur.start, st.t)
		default:
			return inc, 0, v
		}
	}
	keep := st.n
	st.point = *cur
	st.n = append(keep[:0], cur.n...)
	return inc, from, v
}

// firstFrom returns since when the counts of a process's first point are. A
// process exports nothing of requests before it has had one, so that its
// start says little: a node that was idle for an hour would have its first ten
// seconds of traffic taken for an outage. But a managed node's exports come
// whole and in order, from the agent's spool if need be, so that a first point
// holds one interval, unless the process may have been heard by an earlier
// life of this manager.
func (a *Aggregator) firstFrom(p *point) int64 {
	live := max(p.start, p.t-int64(rollupStep))
	started := a.started.UnixNano()
	switch {
	case !a.in.sender.managed:
		return p.start
	case p.start >= started:
		return live
	case a.restored == 0: // what was heard before is not known
		return p.start
	case p.t-started < minLimit: // it may have begun after the checkpoint
		return max(p.start, a.restored)
	}
	return live
}
