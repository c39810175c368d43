package otlp

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// budget shares the memory that requests in decoding may take together. It is
// first come, first served: a large request is not starved by small ones. One
// peer gets half of it at most, so that a sender of large bodies that never end
// leaves room for the others.
type budget struct {
	sem    *semaphore.Weighted
	size   int64
	wait   time.Duration
	used   atomic.Int64
	busy   *busyMeters
	waited func(time.Time) // notes a wait that began then

	mu    sync.Mutex // guards peers
	peers map[netip.Addr]*account
}

// account is what one peer may hold, as long as it holds something.
type account struct {
	sem    *semaphore.Weighted // half of the budget
	shares int
}

// smallShare is what a request may hold without an account: honest ones mostly.
const smallShare = 1 << 20

func newBudget(size int64, wait time.Duration, busy *busyMeters, waited func(time.Time)) *budget {
	return &budget{sem: semaphore.NewWeighted(size), size: size, wait: wait, busy: busy, waited: waited, peers: map[netip.Addr]*account{}}
}

// reserve starts a share of zero bytes for a peer; the zero Addr is nobody in
// particular. The caller releases it.
func (b *budget) reserve(peer netip.Addr) *share { return &share{b: b, peer: peer} }

// share is what one request has of the budget. It is used by one goroutine.
type share struct {
	b       *budget
	peer    netip.Addr
	held    int64
	account *account
	charged int64 // of held, on the account
}

// grow raises the share to n bytes, or to the whole budget where n is more. It
// waits for its turn as long as the budget's wait, then refuses as retryable;
// waits are bounded, so requests that grow cannot block each other for good.
func (s *share) grow(ctx context.Context, n int64) error {
	n = min(n, s.b.size)
	if n <= s.held {
		return nil
	}
	if err := s.charge(ctx, n); err != nil {
		return err
	}
	if ok, err := s.b.acquire(ctx, s.b.sem, n-s.held); err != nil {
		return err
	} else if !ok {
		s.b.busy.decoding.Inc()
		return refuseBusy("too many bytes are being decoded (%d of %d): try again", s.b.used.Load(), s.b.size)
	}
	s.b.used.Add(n - s.held)
	s.held = n
	return nil
}

// charge raises what stands on the account of the peer to n bytes.
func (s *share) charge(ctx context.Context, n int64) error {
	n = min(n, s.b.size/2)
	if n <= smallShare || n <= s.charged || !s.peer.IsValid() {
		return nil
	}
	if s.account == nil {
		s.account = s.b.open(s.peer)
	}
	if ok, err := s.b.acquire(ctx, s.account.sem, n-s.charged); err != nil {
		return err
	} else if !ok {
		s.b.busy.peer.Inc()
		return refuseBusy("too many bytes from this address are being received and decoded: try again")
	}
	s.charged = n
	return nil
}

// acquire reports whether it got n of sem in time. The error is ctx's.
func (b *budget) acquire(ctx context.Context, sem *semaphore.Weighted, n int64) (bool, error) {
	if sem.TryAcquire(n) {
		return true, nil
	}
	defer b.waited(time.Now())
	wctx, cancel := context.WithTimeout(ctx, b.wait)
	defer cancel()
	if err := sem.Acquire(wctx, n); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}

// open returns the account of a peer; close follows.
func (b *budget) open(peer netip.Addr) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.peers[peer]
	if a == nil {
		a = &account{sem: semaphore.NewWeighted(b.size / 2)}
		b.peers[peer] = a
	}
	a.shares++
	return a
}

func (b *budget) close(peer netip.Addr, a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.shares--; a.shares == 0 {
		delete(b.peers, peer)
	}
}

// release gives the share back. It may be called twice.
func (s *share) release() {
	if s.account != nil {
		s.account.sem.Release(s.charged)
		s.b.close(s.peer, s.account)
		s.account, s.charged = nil, 0
	}
	if s.held > 0 {
		s.b.used.Add(-s.held)
		s.b.sem.Release(s.held)
		s.held = 0
	}
}
