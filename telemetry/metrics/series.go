package metrics

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Series is a prepared handle of one stored series: its labels and the
// reference under which the TSDB knows it, so that an append costs neither
// label strings nor a lookup. It stays good for ever: when the TSDB has
// dropped the series from memory, the next append finds or makes it anew by
// its labels and the handle learns the new reference. References are never
// used twice while a process lives, so an old one cannot hit another series.
//
// A Series is safe for concurrent use, by several batches too.
type Series struct {
	lbls labels.Labels
	ref  atomic.Uint64

	// start is the newest start time (Unix ms) for which a zero sample was
	// tried, see writer.begin.
	start atomic.Int64

	// The rest is for series in the table: those made by senders.
	owner  *owner
	dead   atomic.Bool // the TSDB dropped it; points must ask the table again
	shared atomic.Bool // more than one point leads to it
	next   *Series     // of the table's chain, guarded by the table
	hash   uint64      // of lbls
	aged   bool        // survived a sweep without a sample, guarded by the table

	mu    sync.Mutex
	delta *deltaState // guarded by mu; nil until a delta point came
}

// Labels returns the labels of the series, the metric name among them.
func (s *Series) Labels() labels.Labels { return s.lbls }

// Series returns a handle for the series with the given labels, which must be
// sorted and hold __name__. No series is stored until a batch appends to it.
// Handles made this way are for the manager's own series (roll-ups): they are
// under no cardinality limit. Two handles of equal labels work side by side.
func (s *Store) Series(lbls labels.Labels) *Series { return &Series{lbls: lbls} }

// append hands one sample to app by reference and remembers the reference
// that comes back.
func (s *Series) appendFloat(app storage.AppenderV2, t int64, v float64, o storage.AppendV2Options) error {
	old := s.ref.Load()
	ref, err := app.Append(storage.SeriesRef(old), s.lbls, 0, t, v, nil, nil, o)
	s.learn(old, ref)
	return err
}

// learn keeps the reference of a successful append; failed ones return 0.
func (s *Series) learn(old uint64, ref storage.SeriesRef) {
	if ref != 0 && uint64(ref) != old {
		s.ref.Store(uint64(ref))
	}
}

// appendHistogram is appendFloat for histograms. The TSDB keeps h.
func (s *Series) appendHistogram(app storage.AppenderV2, t int64, h *histogram.Histogram, o storage.AppendV2Options) error {
	old := s.ref.Load()
	ref, err := app.Append(storage.SeriesRef(old), s.lbls, 0, t, 0, h, nil, o)
	s.learn(old, ref)
	return err
}

// appendZero adds an empty histogram laid out like another at t, unless the series
// already has a newer sample. The TSDB keeps zero.
func (s *Series) appendZero(app storage.AppenderV2, t int64, zero, like *histogram.Histogram) error {
	*zero = histogram.Histogram{
		CounterResetHint: histogram.CounterReset, // by definition
		// Equal layout, so that the sample after it fits the same chunk and
		// the chunk need not be written anew with its buckets.
		Schema:          like.Schema,
		ZeroThreshold:   like.ZeroThreshold,
		CustomValues:    like.CustomValues,
		PositiveSpans:   like.PositiveSpans,
		NegativeSpans:   like.NegativeSpans,
		PositiveBuckets: noCounts(len(like.PositiveBuckets)),
		NegativeBuckets: noCounts(len(like.NegativeBuckets)),
	}
	err := s.appendHistogram(app, t, zero, storage.AppendV2Options{RejectOutOfOrder: true})
	if errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
		return nil
	}
	return err
}

// noCounts returns n zeros, which nobody changes.
func noCounts(n int) []int64 {
	if n > len(zeros) {
		return make([]int64, n)
	}
	return zeros[:n:n]
}

var zeros [maxBuckets + 1]int64

// appendZeroFloat is appendZero for counters.
func (s *Series) appendZeroFloat(app storage.AppenderV2, t int64) error {
	err := s.appendFloat(app, t, 0, storage.AppendV2Options{RejectOutOfOrder: true})
	if errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
		return nil
	}
	return err
}
