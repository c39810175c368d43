package otlp

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// budget shares the memory that requests in decoding may take together. It is
// first come, first served: a large request is not starved by small ones.
type budget struct {
	sem  *semaphore.Weighted
	size int64
	wait time.Duration
	used atomic.Int64
}

func newBudget(size int64, wait time.Duration) *budget {
	return &budget{sem: semaphore.NewWeighted(size), size: size, wait: wait}
}

// reserve starts a share of zero bytes. The caller releases it.
func (b *budget) reserve() *share { return &share{b: b} }

// share is what one request has of the budget. It is used by one goroutine.
type share struct {
	b    *budget
	held int64
}

// grow raises the share to n bytes, or to the whole budget where n is more. It
// waits for its turn as long as the budget's wait, then refuses as retryable;
// waits are bounded, so requests that grow cannot block each other for good.
func (s *share) grow(ctx context.Context, n int64) error {
	n = min(n, s.b.size)
	more := n - s.held
	if more <= 0 {
		return nil
	}
	if !s.b.sem.TryAcquire(more) {
		wctx, cancel := context.WithTimeout(ctx, s.b.wait)
		defer cancel()
		if err := s.b.sem.Acquire(wctx, more); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				return refuseBusy("too many bytes are being decoded (%d of %d): try again", s.b.used.Load(), s.b.size)
			}
			return err
		}
	}
	s.held = n
	s.b.used.Add(more)
	return nil
}

// release gives the share back. It may be called twice.
func (s *share) release() {
	if s.held > 0 {
		s.b.used.Add(-s.held)
		s.b.sem.Release(s.held)
		s.held = 0
	}
}
