package worker

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent is the pace of the garbage collector. A gateway has some megabytes
// alive and makes garbage with each request: at the runtime's 100 it collects
// many times a second. docs/benchmarks.md has what each pace costs in CPU and
// memory.
const gcPercent = 400

// memoryShare is how much of the container's memory one process may use before
// the collector works harder: the agent, and at a takeover a second worker, need
// theirs.
const memoryShare = 0.6

// TuneMemory sets the pace of the garbage collector and a soft limit for
// containers, unless GOGC and GOMEMLIMIT say them.
func TuneMemory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := containerLimit(); limit > 0 {
		soft := int64(float64(limit) * memoryShare)
		debug.SetMemoryLimit(soft)
		log.Debug("memory is limited by the container", "container_bytes", limit, "soft_limit_bytes", soft)
	}
}

// containerLimit is the memory of the control group that this process sees as
// its root, of either version; 0 is none.
func containerLimit() int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(path)
		if err == nil {
			return parseLimit(string(b))
		}
	}
	return 0
}

// parseLimit reads "max" and, of version 1, a number near the largest as none.
func parseLimit(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/2 {
		return 0
	}
	return n
}
