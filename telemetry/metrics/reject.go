package metrics

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/storage"
)

// reason says why a data point was refused.
type reason uint8

const (
	tooOld reason = iota
	ahead
	duplicate
	lateDelta
	seriesLimit
	invalid
	numReasons
)

// label is the value of the reason label in the store's own metrics.
func (r reason) label() string {
	return [numReasons]string{"too_old", "ahead", "duplicate", "late_delta", "series_limit", "invalid"}[r]
}

var (
	errAhead         = errors.New("timestamp is ahead of the manager's clock")
	errNoTime        = errors.New("point has no timestamp")
	errLateDelta     = errors.New("delta point is not newer than the one before it")
	errTooManyLabels = fmt.Errorf("point has more than %d labels", maxLabels)
	errLongName      = fmt.Errorf("attribute key is longer than %d bytes", maxNameBytes)
)

// reasonOf classes the error of one point.
func reasonOf(err error) reason {
	switch {
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample):
		return tooOld
	case errors.Is(err, errAhead):
		return ahead
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return duplicate
	case errors.Is(err, errLateDelta):
		return lateDelta
	case errors.Is(err, errSeriesLimit):
		return seriesLimit
	}
	return invalid
}

// rejections collects the refused points of one batch for its partial success.
type rejections struct {
	n      [numReasons]int
	metric [numReasons]string // the first metric hit
	first  [numReasons]error
}

// add counts n points of a metric as refused for err.
func (r *rejections) add(n int, metric string, err error) {
	if n == 0 {
		return
	}
	why := reasonOf(err)
	if r.n[why] == 0 {
		r.metric[why], r.first[why] = metric, err
	}
	r.n[why] += n
}

func (r *rejections) total() int {
	sum := 0
	for _, n := range r.n {
		sum += n
	}
	return sum
}

// message tells the sender what was refused and what to do, in one line.
func (r *rejections) message(o Options) string {
	var parts []string
	for why, n := range r.n {
		if n == 0 {
			continue
		}
		var what string
		switch reason(why) {
		case tooOld:
			what = fmt.Sprintf("older than %s behind the newest sample", o.OutOfOrder)
		case ahead:
			what = fmt.Sprintf("more than %s ahead of the manager's clock, check the sender's clock", o.MaxAhead.Round(time.Second))
		case duplicate:
			what = "another value is stored for the same time, two senders may share one identity"
		case lateDelta:
			what = "delta points out of order or sent twice"
		case seriesLimit:
			what = fmt.Sprintf("%v; send fewer distinct attribute values", r.first[why])
		default:
			what = r.first[why].Error()
		}
		parts = append(parts, fmt.Sprintf("%d: %s (first: %q)", n, what, r.metric[why]))
	}
	return "data points rejected: " + strings.Join(parts, "; ")
}
