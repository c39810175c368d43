package metrics

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
)

// Batch collects samples of prepared series and stores them together. It must
// end with Commit or Rollback, and not be used afterwards or by two goroutines
// at once.
//
// A large one is stored in parts: the TSDB keeps a map of the histograms of an
// appender, which it clears after use and gives to another one. After one of all
// roll-ups each request of a node would clear a map of twenty thousand.
type Batch struct {
	s    *Store
	apps []storage.AppenderV2 // the last one is appended to
	n    int
}

// partSize is how many samples one appender of a Batch takes: some requests' worth.
const partSize = 512

// Batch begins a batch. Several may be open at once.
func (s *Store) Batch() *Batch { return &Batch{s: s} }

// next returns the appender for one more sample.
func (b *Batch) next() storage.AppenderV2 {
	if b.n == len(b.apps)*partSize {
		b.apps = append(b.apps, b.s.db.AppenderV2(context.Background()))
	}
	return b.apps[len(b.apps)-1]
}

// AppendFloat adds a float sample; t is in Unix milliseconds. A sample that
// the series holds already is accepted and not stored twice. The error is
// storage.ErrTooOldSample, ErrDuplicateSampleForTimestamp or another of that
// package, with the series; the batch goes on without the sample.
func (b *Batch) AppendFloat(s *Series, t int64, v float64) error {
	if err := s.appendFloat(b.next(), t, v, storage.AppendV2Options{}); err != nil {
		return fmt.Errorf("append to %s: %w", s.lbls, err)
	}
	b.n++
	return nil
}

// AppendHistogram adds a native histogram sample; t is in Unix milliseconds.
// The store keeps h: the caller must not touch it, nor its buckets, again
// (spans and custom values may be shared between samples if nobody changes
// them). An inconsistent h is refused. Errors are as for AppendFloat.
func (b *Batch) AppendHistogram(s *Series, t int64, h *histogram.Histogram) error {
	if err := s.appendHistogram(b.next(), t, h, storage.AppendV2Options{}); err != nil {
		return fmt.Errorf("append to %s: %w", s.lbls, err)
	}
	b.n++
	return nil
}

// AppendZero adds an empty histogram at t, laid out like h, before the first
// real sample of a new series, so that its first increase is counted. Where
// the series has a newer sample already it does nothing.
func (b *Batch) AppendZero(s *Series, t int64, like *histogram.Histogram) error {
	if err := s.appendZero(b.next(), t, new(histogram.Histogram), like); err != nil {
		return fmt.Errorf("append zero to %s: %w", s.lbls, err)
	}
	return nil
}

// Len returns how many samples the batch holds.
func (b *Batch) Len() int { return b.n }

// Commit stores the batch: it is in the log and readable afterwards. On error
// nothing of it is, unless the disk failed between two parts of a large batch.
func (b *Batch) Commit() error {
	if err := b.s.space.check(time.Now()); err != nil {
		return errors.Join(err, b.Rollback())
	}
	for i, app := range b.apps {
		if err := app.Commit(); err != nil {
			b.apps = b.apps[i+1:]
			return errors.Join(b.s.commitFailed(err), b.Rollback())
		}
	}
	b.s.self.rollupSamples.Add(b.n)
	return nil
}

// Rollback drops the batch.
func (b *Batch) Rollback() error {
	var errs []error
	for _, app := range b.apps {
		errs = append(errs, app.Rollback())
	}
	return errors.Join(errs...)
}
