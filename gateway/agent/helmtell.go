package agent

import (
	"context"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// told is what a worker was told last; a new worker knows nothing.
type told struct {
	draining bool
	interval time.Duration
	limit    *float64
}

// interval is how often telemetry shall be exported.
func (h *helm) interval() time.Duration {
	if p := h.a.plan.Load(); p != nil && p.Telemetry.Interval > 0 {
		return time.Duration(p.Telemetry.Interval * float64(time.Second))
	}
	return defaultInterval
}

// defaultInterval is how often telemetry is exported when no plan says it.
const defaultInterval = 10 * time.Second

// tell passes draining and the export interval on. What fails is tried again
// at the next turn of the loop.
func (h *helm) tell(ctx context.Context, p api.Plan) {
	if h.worker == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if p.Drain != h.told.draining {
		if err := h.worker.drain(ctx, p.Drain); err != nil {
			h.log.Warn("the worker did not take the order to drain or undrain", "err", err)
		} else {
			h.told.draining = p.Drain
			h.log.Info("draining changed", "draining", p.Drain)
		}
	}
	if d := h.interval(); d != h.told.interval {
		if err := h.worker.setInterval(ctx, d); err != nil {
			h.log.Warn("the worker did not take a new export interval", "err", err)
		} else {
			h.told.interval = d
		}
	}
}

// tellLimit passes the fallback rate on, or that there is none any more.
func (h *helm) tellLimit(ctx context.Context) {
	limit := h.a.lease.limit()
	if h.worker == nil || sameRate(limit, h.told.limit) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := h.worker.setLimit(ctx, limit); err != nil {
		h.log.Warn("the worker did not take the fallback rate", "err", err)
		return
	}
	h.told.limit = limit
	h.log.Info("the worker's limit changed", "limit", rateText(limit))
}
