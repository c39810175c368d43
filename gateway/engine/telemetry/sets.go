package telemetry

import (
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/attribute"
)

// metricAttributeSets watches the SDK's limit of attribute sets. The SDK forgets
// none while the process lives, so that they add up over swaps.
const metricAttributeSets = "binnacle.gateway.attribute_sets"

// setCount counts the different attribute sets of one instrument, and warns when
// the limit is near and when it is reached. It is safe for concurrent use.
type setCount struct {
	side string
	log  *slog.Logger

	mu     sync.Mutex // guards what follows
	seen   map[attribute.Distinct]struct{}
	warned bool
}

func newSetCount(side string, log *slog.Logger) *setCount {
	return &setCount{side: side, log: log, seen: map[attribute.Distinct]struct{}{}}
}

// add counts s if it is new. Beyond the limit nothing is kept.
func (c *setCount) add(s attribute.Set) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) > maxAttributeSets {
		return
	}
	c.seen[s.Equivalent()] = struct{}{}
	switch n := len(c.seen); {
	case n > maxAttributeSets:
		c.log.Error("there are too many different routes, backends and outcomes to count each; further ones are counted together, until the worker restarts",
			"side", c.side, "limit", maxAttributeSets)
	case n > maxAttributeSets*8/10 && !c.warned:
		c.warned = true
		c.log.Warn("the limit of different routes, backends and outcomes is near; a restart of the worker forgets those of former configurations",
			"side", c.side, "sets", n, "limit", maxAttributeSets)
	}
}

func (c *setCount) count() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.seen))
}
