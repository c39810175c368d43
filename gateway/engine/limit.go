package engine

import (
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// limiter is the fallback rate of a node whose lease has ended: a token bucket
// that holds the requests of one second and is full at first, so that a node
// at or below its rate notices nothing when the limit comes in.
//
// It is kept as the time at which the bucket would be full again (the generic
// cell rate algorithm), in one word: no lock, and no timer. It is safe for
// concurrent use.
type limiter struct {
	rate     float64
	interval int64 // ns between two requests at the rate, rounded in favor of traffic
	window   int64 // ns of requests that the bucket holds
	start    time.Time
	full     atomic.Int64 // ns after start
	limited  *metrics.Counter
}

// newLimiter returns nil for a rate that is no limit: one that is not a
// positive finite number (no lease, license or error may stop a node from
// serving), or one beyond a request per nanosecond.
func newLimiter(rate float64, limited *metrics.Counter) *limiter {
	if math.IsNaN(rate) || math.IsInf(rate, 0) || rate <= 0 {
		return nil
	}
	interval := int64(min(float64(time.Second)/rate, float64(math.MaxInt64/4)))
	if interval == 0 {
		return nil
	}
	return &limiter{
		rate: rate, interval: interval, window: max(int64(time.Second), interval),
		start: time.Now(), limited: limited,
	}
}

// allow takes a token; when there is none, it says how long the next one
// takes.
func (l *limiter) allow() (wait time.Duration, ok bool) {
	now := int64(time.Since(l.start))
	for {
		full := l.full.Load()
		next := max(full, now) + l.interval
		if over := next - now - l.window; over > 0 {
			return time.Duration(over), false
		}
		if l.full.CompareAndSwap(full, next) {
			return 0, true
		}
	}
}

// handler refuses what exceeds the rate with 429. Requests for health are
// neither refused nor counted: a load balancer must not take a limited node
// for a dead one.
func (l *limiter) handler(health string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == health {
			next.ServeHTTP(w, r)
			return
		}
		wait, ok := l.allow()
		if ok {
			next.ServeHTTP(w, r)
			return
		}
		l.limited.Inc()
		telemetry.SetErrorType(w, binnacle.ErrorTypeLimit)
		seconds := int64((wait + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
		http.Error(w, "this node has no valid lease and is at its fallback rate", http.StatusTooManyRequests)
	})
}

// SetLimit puts the fallback rate, in requests per second, in front of all
// endpoints; nil takes it away. It takes effect with the next request, also
// while a configuration is being built, and stays over swaps. The same rate
// again changes nothing, so that it cannot be used to fill the bucket.
//
// A rate that is not a positive number is no limit: nothing that a lease says
// stops a node from serving.
//
// Without a limit a request passes no code of it: the handler chain is chosen
// here. With one, a request over the rate gets 429 and Retry-After, counts in
// binnacle_gateway_limited_total, and has error.type binnacle.limit in
// telemetry.
func (e *Engine) SetLimit(rate *float64) {
	e.entry.Lock()
	defer e.entry.Unlock()
	var l *limiter
	if rate != nil {
		if e.limit != nil && e.limit.rate == *rate {
			return
		}
		l = newLimiter(*rate, e.limited)
	}
	if l == e.limit { // both nil
		return
	}
	e.limit = l
	if s := e.current.Load(); s != nil {
		e.current.Store(&serving{s.generation, s.generation.handler(l)})
	}
	if l == nil {
		e.log.Info("the fallback rate is off")
	} else {
		e.log.Warn("the fallback rate is on", "requests_per_second", l.rate)
	}
}

// Limit returns the fallback rate in force; nil is none.
func (e *Engine) Limit() *float64 {
	e.entry.Lock()
	defer e.entry.Unlock()
	if e.limit == nil {
		return nil
	}
	rate := e.limit.rate
	return &rate
}
