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
type Batch struct {
	s   *Store
	app storage.AppenderV2
	n   int
}

// Batch begins a batch. Several may be open at once.
func (s *Store) Batch() *Batch {
	return &Batch{s: s, app: s.db.AppenderV2(context.Background())}
}

// AppendFloat adds a float sample; t is in Unix milliseconds. A sample that
// the series holds already is accepted and not stored twice. The error is
// storage.ErrTooOldSample, ErrDuplicateSampleForTimestamp or another of that
// package, with the series; the batch goes on without the sample.
func (b *Batch) AppendFloat(s *Series, t int64, v float64) error {
	if err := s.appendFloat(b.app, t, v, storage.AppendV2Options{}); err != nil {
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
	if err := s.appendHistogram(b.app, t, h, storage.AppendV2Options{}); err != nil {
		return fmt.Errorf("append to %s: %w", s.lbls, err)
	}
	b.n++
	return nil
}

// AppendZero adds an empty histogram at t, laid out like h, before the first
// real sample of a new series, so that its first increase is counted. Where
// the series has a newer sample already it does nothing.
func (b *Batch) AppendZero(s *Series, t int64, like *histogram.Histogram) error {
	if err := s.appendZero(b.app, t, new(histogram.Histogram), like); err != nil {
		return fmt.Errorf("append zero to %s: %w", s.lbls, err)
	}
	return nil
}

// Len returns how many samples the batch holds.
func (b *Batch) Len() int { return b.n }

// Commit stores the batch: it is in the log and readable afterwards. On error
// nothing of it is.
func (b *Batch) Commit() error {
	if err := b.s.space.check(time.Now()); err != nil {
		return errors.Join(err, b.app.Rollback())
	}
	if err := b.app.Commit(); err != nil {
		return b.s.commitFailed(err)
	}
	b.s.self.rollupSamples.Add(b.n)
	return nil
}

// Rollback drops the batch.
func (b *Batch) Rollback() error { return b.app.Rollback() }
