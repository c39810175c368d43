package traces

import (
	"math"
	"time"
)

// window is a hint of when a trace was: hours and blocks in memory that have no span
// which started about then are not looked at. What has one is, and gives all it has.
type window struct{ from, to uint64 } // Unix nanoseconds, both within

// always is no hint.
var always = window{0, math.MaxUint64}

// hintSlack is how much earlier or later than the hint a span of the trace may have
// started. Those who ask know when a part of the trace was, or round.
const hintSlack = time.Hour

// windowOf makes a hint of two times, of which either may be zero.
func windowOf(start, end time.Time) (window, error) {
	if !start.IsZero() && !end.IsZero() && end.Before(start) {
		return window{}, badQuery("end %s is before start %s", end.UTC().Format(time.RFC3339Nano), start.UTC().Format(time.RFC3339Nano))
	}
	w := always
	if !start.IsZero() {
		w.from = uint64(max(clampTime(start.Add(-hintSlack)).UnixNano(), 0))
	}
	if !end.IsZero() {
		w.to = uint64(max(clampTime(end.Add(hintSlack)).UnixNano(), 0))
	}
	return w, nil
}

// meets reports whether it has a moment from lo to hi.
func (w window) meets(lo, hi uint64) bool { return lo <= w.to && hi >= w.from }
