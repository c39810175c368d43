package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"time"

	"github.com/binnacle-project/binnacle/state/diskspace"

	vm "github.com/VictoriaMetrics/metrics"
)

// ErrReadOnly says that the store takes nothing now. Queries go on.
var ErrReadOnly = errors.New("metrics store is read-only")

// space keeps the store from filling its disk. The TSDB must never meet a full
// one: a record of its log that is cut off in the middle hides all that is
// written after it from the next start, and a chunk file that cannot grow ends
// the process. So writes are refused, as retryable, while there is still room
// for what is on its way, and are taken again once there is more.
//
// Safe for concurrent use.
type space struct {
	dir     string
	minFree int64 // below 0: not looked at
	log     *slog.Logger
	refused *vm.Counter

	next atomic.Int64 // when to look again, Unix ms
	full atomic.Bool
	torn atomic.Pointer[error] // why the log may be torn, once it may be
}

// spaceInterval is how often the disk is looked at while something is written:
// at 50 MB a second of log, that is a tenth of the default reserve.
const spaceInterval = 100 * time.Millisecond

// check returns an *Unavailable while nothing may be written.
func (sp *space) check(now time.Time) error {
	if next, ms := sp.next.Load(), now.UnixMilli(); ms >= next && sp.next.CompareAndSwap(next, ms+spaceInterval.Milliseconds()) {
		sp.look()
	}
	var err error
	switch torn := sp.torn.Load(); {
	case torn != nil:
		err = fmt.Errorf("%w: its log could not be written, restart the manager: %w", ErrReadOnly, *torn)
	case sp.full.Load():
		err = fmt.Errorf("%w: less than %d bytes are free in %s, free some space or lower the retention", ErrReadOnly, sp.minFree, sp.dir)
	default:
		return nil
	}
	sp.refused.Inc()
	return &Unavailable{After: retryAfter, Err: err}
}

// look reads the free space and tells of a change.
func (sp *space) look() {
	if sp.minFree < 0 {
		return
	}
	free, err := diskspace.Free(sp.dir)
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			sp.log.Warn("free space unknown", "dir", sp.dir, "error", err)
		}
		return
	}
	full := free < uint64(sp.minFree)
	switch was := sp.full.Swap(full); {
	case full && !was:
		sp.log.Error("disk is full: metrics are refused until space returns", "dir", sp.dir, "free", free, "need", sp.minFree)
	case was && !full:
		sp.log.Info("space has returned: metrics are taken again", "dir", sp.dir, "free", free)
	}
}

// readOnly says whether writes are refused.
func (sp *space) readOnly() bool { return sp.full.Load() || sp.torn.Load() != nil }

// tear notes that a write of the log failed. What was appended after a torn
// record would be lost at the next start, so nothing is.
func (sp *space) tear(err error) {
	if sp.torn.CompareAndSwap(nil, &err) {
		sp.log.Error("the log of the metrics store could not be written: metrics are refused until the manager is restarted", "dir", sp.dir, "error", err)
	}
}
