package manager

import (
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// gatherTelemetry is how long exports of a fleet wait for each other. At most five times a second
// the manager wakes for them then, however many nodes there are; exporters give a
// request ten seconds.
const gatherTelemetry = 200 * time.Millisecond

// memoryShare is how much of the container's or the machine's memory the Go
// runtime may use before its collector works harder. The rest is for the kernel:
// the stores read their files through its cache.
const memoryShare = 0.8

// LimitMemory gives the Go runtime a soft memory limit, from the control group or
// else the machine, unless GOMEMLIMIT says it. Receivers refuse telemetry, as
// retryable, when four fifths of it are in use (otlp.Options.SoftMemory).
func LimitMemory(log *slog.Logger) {
	before := debug.SetMemoryLimit(-1)
	if _, err := memlimit.Set(
		memlimit.WithRatio(memoryShare),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	); err != nil {
		log.Warn("memory is not limited: set GOMEMLIMIT, or a flood of telemetry may end the process", "error", err)
		return
	}
	if limit := debug.SetMemoryLimit(-1); limit != before {
		log.Info("memory is limited", "soft_limit_bytes", limit, "telemetry_refused_from", limit/5*4)
	}
}

const (
	// sampleBytes is what a query holds of a sample; a histogram counts as several.
	sampleBytes = 16
	// fewestSamples lets the page's own queries pass on the smallest machine.
	fewestSamples = 1_000_000
)

// maxSamples is --query-max-samples, or less where as many queries as may run at
// once could take more than a third of the memory limit.
func (o Options) maxSamples(memory int64) int {
	if memory <= 0 || memory == math.MaxInt64 {
		return o.QueryMaxSamples
	}
	fit := memory / 3 / sampleBytes / int64(max(o.QueryConcurrency, 1))
	return int(min(int64(o.QueryMaxSamples), max(fit, fewestSamples)))
}
