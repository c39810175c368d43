package traces

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// Limits of the block that is being filled. Larger blocks compress better and
// are read slower; at less than 30,000 spans a second the flush every half
// second closes them first, and those of less than mergeSpans are merged.
const (
	maxBlockSpans = 16 << 10
	maxBlockBytes = 8 << 20
)

// maxSealing bounds the blocks that wait to be written when the disk does not
// keep up.
const maxSealing = 8

// sealingBlock is a block on its way to the disk.
type sealingBlock struct {
	*block
	busy   bool       // someone is writing it; guarded by Store.mu
	merged *gathering // of which it is the block; nil where spans came into it
}

// WriteTraces keeps the spans of t, which are readable at once and durable
// within one second. Spans without a trace id or span id are rejected and
// counted; message says so. It reads t during the call and keeps nothing of it.
//
// An error with a method RetryAfter says that nothing was kept and that the
// same batch may be sent again: the disk is full or the store overloaded.
func (s *Store) WriteTraces(ctx context.Context, _ binnacle.Origin, t *wire.Traces) (rejected int, message string, err error) {
	if err := ctx.Err(); err != nil {
		return 0, "", err
	}
	s.life.RLock() // a block that it fills is written before Close goes on
	defer s.life.RUnlock()
	full, invalid, err := s.append(t)
	if err != nil {
		s.meters.refused.Add(t.Spans())
		return 0, "", err
	}
	s.meters.written.Add(t.Spans() - invalid)
	if invalid > 0 {
		s.meters.invalid.Add(invalid)
		message = "spans without trace id or span id are not kept"
	}
	if full != nil {
		s.sealFor(ctx, full)
	}
	return invalid, message, nil
}

// sealFor writes the block that a sender has filled. The sender waits for it, so
// that a fast one waits for the disk, but not for a full disk or longer than it
// wants: what it sent is in memory like what others did, so an error is theirs,
// too, and the next flush tries again.
func (s *Store) sealFor(ctx context.Context, full *sealingBlock) {
	s.mu.RLock()
	halted := s.halted
	s.mu.RUnlock()
	defer s.meters.sealWait.UpdateDuration(time.Now())
	done := make(chan struct{})
	s.sealers.Go(func() {
		defer close(done)
		if err := s.seal(full); err != nil {
			s.log.Error("spans not written, will try again", "error", err)
		}
	})
	select {
	case <-done:
	case <-halted:
	case <-ctx.Done():
	}
}

// append adds t to the open block and, if that is full, starts another and
// returns the full one, marked busy.
func (s *Store) append(t *wire.Traces) (full *sealingBlock, invalid int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, 0, retryable{errClosed}
	case s.full:
		return nil, 0, retryable{fmt.Errorf("%w: less than %d bytes are free in %s", ErrReadOnly, s.o.MinFreeBytes, s.o.Dir)}
	case len(s.sealing) >= maxSealing:
		return nil, 0, retryable{fmt.Errorf("%w: %d blocks wait for the disk", ErrReadOnly, len(s.sealing))}
	case s.undecidedBytes > 2*s.o.Sampling.MaxBytes:
		return nil, 0, retryable{fmt.Errorf("%w: %d bytes of spans wait for the disk to take their verdict", ErrReadOnly, s.undecidedBytes)}
	}
	from := len(s.open.spans)
	invalid = s.open.append(t)
	if len(s.o.Sampling.Rules) > 0 {
		kept, dropped := s.docket.hear(s.open, from)
		s.meters.sampling.late[true].Add(kept)
		s.meters.sampling.late[false].Add(dropped)
	}
	if len(s.open.spans) >= maxBlockSpans || s.open.size() >= maxBlockBytes {
		full = s.turnLocked()
		full.busy = true
	}
	return full, invalid, nil
}

// turnLocked starts a new block and returns the one before, which now waits to
// be written, or nil where it is empty.
func (s *Store) turnLocked() *sealingBlock {
	if len(s.open.spans) == 0 {
		return nil
	}
	sb := &sealingBlock{block: s.open}
	s.sealing = append(s.sealing, sb)
	s.open = newBlockAfter(s.open)
	return sb
}

// flush writes all blocks in memory that nobody else is writing, and what has been
// gathered for long enough.
func (s *Store) flush() error {
	s.mu.Lock()
	s.turnLocked()
	if s.gathering.due(s.o.now()) {
		s.turnGatheringLocked()
	}
	var mine []*sealingBlock
	for _, sb := range s.sealing {
		if !sb.busy {
			sb.busy = true
			mine = append(mine, sb)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, sb := range mine {
		errs = append(errs, s.seal(sb))
	}
	return errors.Join(errs...)
}

// retryable marks an error as one that will pass.
type retryable struct{ error }

func (e retryable) Unwrap() error { return e.error }

// RetryAfter says when to try again.
func (retryable) RetryAfter() time.Duration { return 5 * time.Second }
