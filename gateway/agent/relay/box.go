package relay

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
)

// errNoSpool is returned where there is none.
var errNoSpool = errors.New("there is no telemetry spool")

// spoolBox is the spool of a relay, which may be off, and is opened late: it
// verifies all that it holds, and nothing waits for that.
type spoolBox struct {
	dir string
	max int64 // negative: off
	m   *spoolMetrics

	mu sync.Mutex // guards s
	s  *spool
}

// Open opens the spool. A failure is told; telemetry then waits in memory only.
func (b *spoolBox) open(log *slog.Logger) {
	if b.max < 0 {
		return
	}
	s, err := openSpool(b.dir, b.max, log, b.m)
	if err != nil {
		log.Error("telemetry will wait in memory only while the manager is away", "err", err)
		return
	}
	if n, bytes := s.size(); n > 0 {
		log.Info("telemetry of an earlier time waits in the spool", "exports", n, "bytes", bytes)
	}
	b.mu.Lock()
	b.s = s
	b.mu.Unlock()
}

func (b *spoolBox) get() *spool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.s
}

func (b *spoolBox) oldest() (spooled, bool) {
	if s := b.get(); s != nil {
		return s.oldest()
	}
	return spooled{}, false
}

func (b *spoolBox) put(e export, node binnacle.NodeID) error {
	if s := b.get(); s != nil {
		return s.put(e, node)
	}
	return errNoSpool
}

func (b *spoolBox) done(e spooled) {
	if s := b.get(); s != nil {
		s.done(e)
	}
}

func (b *spoolBox) size() (exports int, bytes int64) {
	if s := b.get(); s != nil {
		return s.size()
	}
	return 0, 0
}

func (b *spoolBox) syncIfDue(now time.Time) time.Time {
	if s := b.get(); s != nil {
		return s.syncIfDue(now)
	}
	return time.Time{}
}

// Close ends the spool; what waits stays on disk.
func (b *spoolBox) close() {
	b.mu.Lock()
	s := b.s
	b.s = nil
	b.mu.Unlock()
	if s != nil {
		s.close()
	}
}
