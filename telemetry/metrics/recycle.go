package metrics

import (
	"time"

	"github.com/prometheus/prometheus/model/histogram"
)

// smallHistogram is a histogram with room for the deltas of most, in one
// allocation.
//
// The TSDB keeps the newest histogram of a series, to know a duplicate by, until
// the next one follows it. Then it can be used again: 80 of them for each export
// of a gateway were most of the store's garbage. It is only done where nothing
// else can hold it:
//
//   - The sample is newer than all before of its series, so that it does not go
//     to the chunk of late samples, which keeps what it is given. So the point must
//     be the only way to its Series (Series.shared), know all samples of it (no
//     log was replayed that could hold newer ones, see recycler.after), and be no
//     older than the TSDB takes in order (recent).
//   - The zero before a new series is followed by the sample it was made for, in the
//     same batch, so that it is free as soon as that is stored.
//   - No second batch has a sample of the series under way: the resource stays
//     locked until the commit, which is done for batches of one resource.
type smallHistogram struct {
	histogram.Histogram
	room [16]int64
}

// recycler hands out histograms for the samples of one batch.
type recycler struct {
	on    bool
	after int64 // samples up to here (Unix ms) may not be the newest
	free  []*smallHistogram
	held  []heldHistogram // of the batch
}

type heldHistogram struct {
	p    *point
	h    *smallHistogram
	zero *smallHistogram // that came before h in the batch; mostly nil
}

// recent is how far behind the clock a sample may be to be recycled. The TSDB takes
// in order what is less than an hour behind the newest sample, which can be
// MaxAhead before the clock.
const recent = 30 * time.Minute

// maxFree bounds what a writer keeps for the next batch.
const maxFree = 4096

// begin readies r for a batch. known says since when all samples are known.
func (r *recycler) begin(on bool, now time.Time, known int64) {
	r.on, r.after = on, max(known, now.Add(-recent).UnixMilli())
}

// get returns an empty histogram.
func (r *recycler) get() *smallHistogram {
	if n := len(r.free); n > 0 {
		h := r.free[n-1]
		r.free[n-1] = nil
		r.free = r.free[:n-1]
		h.Histogram = histogram.Histogram{}
		return h
	}
	return new(smallHistogram)
}

// hold notes that h was appended as the sample of p at t, after zero where that is
// not nil. h is nil where it was too large for a smallHistogram. One that cannot be
// used again is left to the collector.
func (r *recycler) hold(p *point, t int64, h, zero *smallHistogram) {
	newer := t > p.shape.newest
	p.shape.newest = max(p.shape.newest, t)
	if h != nil && r.on && newer && t > r.after && !p.series.shared.Load() {
		r.held = append(r.held, heldHistogram{p, h, zero})
	}
}

// settle is called after a commit, and before the resource is unlocked. The
// samples before those of the batch are free then.
func (r *recycler) settle(committed bool) {
	for i, x := range r.held {
		// What was shared meanwhile may have been late after all.
		if committed && !x.p.series.shared.Load() {
			r.release(x.p.shape.held)
			r.release(x.zero)
			x.p.shape.held = x.h
		}
		r.held[i] = heldHistogram{}
	}
	r.held = r.held[:0]
}

// release takes in a histogram that nobody holds any more. nil is none.
func (r *recycler) release(h *smallHistogram) {
	if h != nil && len(r.free) < maxFree {
		r.free = append(r.free, h)
	}
}
