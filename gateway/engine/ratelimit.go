package engine

import (
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	breaker "github.com/krakend/krakend-circuitbreaker/v3/gobreaker/proxy"
	ratelimit "github.com/krakend/krakend-ratelimit/v3"
	limitproxy "github.com/krakend/krakend-ratelimit/v3/proxy"
	limitrouter "github.com/krakend/krakend-ratelimit/v3/router"
	limitgin "github.com/krakend/krakend-ratelimit/v3/router/gin"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
)

// Bounds of the store of client buckets: its shards are allocated for each
// endpoint, and its cleaners are goroutines.
const (
	maxLimitShards   = 1 << 16
	maxCleanupThread = 64
)

// routerLimit wraps next in the rate limits of endpoints. It does what the
// module's handler factory does, with stores that end with their generation:
// the module's run for ever. A strategy that does not exist is a fault; the
// module goes without the limit.
func (b *builder) routerLimit(at string, next luragin.HandlerFactory) luragin.HandlerFactory {
	return func(e *config.EndpointConfig, p proxy.Proxy) gin.HandlerFunc {
		h := next(e, p)
		c, err := limitrouter.ConfigGetter(e.ExtraConfig)
		if err != nil { // none; its shape is checked
			return h
		}
		path := b.blockPath(at, byName["qos/ratelimit/router"])
		b.every(path, e.ExtraConfig[limitrouter.Namespace])
		if c.MaxRate > 0 {
			h = limitgin.NewEndpointRateLimiterMw(ratelimit.NewTokenBucket(c.MaxRate, capacity(c.Capacity, c.MaxRate)))(h)
		}
		if c.ClientMaxRate <= 0 {
			return h
		}
		extract, err := limitgin.TokenExtractorFromCfg(c)
		if err != nil {
			b.fault(path, "strategy %q is not known; use ip, header or param", c.Strategy)
			return h
		}
		if c.NumShards > maxLimitShards || c.CleanUpThreads > maxCleanupThread {
			b.fault(path, "num_shards is at most %d and cleanup_threads at most %d", maxLimitShards, maxCleanupThread)
			return h
		}
		// A store takes 300 KB and a goroutine: it is made when the first
		// client comes.
		store := sync.OnceValue(func() ratelimit.LimiterStore {
			return ratelimit.NewLimiterStore(c.ClientMaxRate, int(capacity(c.ClientCapacity, c.ClientMaxRate)),
				ratelimit.NewShardedBackend(b.ctx, max(c.NumShards, 1), c.TTL, c.CleanUpPeriod, c.CleanUpThreads,
					ratelimit.PseudoFNV64a, ratelimit.MemoryBackendBuilder))
		})
		return limitgin.NewTokenLimiterMw(extract, func(client string) ratelimit.Limiter { return store()(client) })(h)
	}
}

// capacity is that of a bucket: what is configured, else the requests of one
// second.
func capacity(configured uint64, rate float64) uint64 {
	if configured > 0 {
		return configured
	}
	return max(1, uint64(rate))
}

// every refuses a period that does not parse: the modules take it for 1 s.
func (b *builder) every(path string, block any) {
	m, _ := block.(map[string]any)
	s, ok := m["every"].(string)
	if !ok {
		return
	}
	if d, err := time.ParseDuration(s); err != nil || d <= 0 {
		b.fault(path+"/every", "%q is no duration such as 1s, 1m or 24h", s)
	}
}

// backendLimits wraps next in the rate limit and, around it, the circuit
// breaker of a backend.
func (b *builder) backendLimits(next proxy.BackendFactory) proxy.BackendFactory {
	next = limitproxy.BackendFactory(b.lura, next)
	next = breaker.BackendFactory(next, b.lura)
	return func(remote *config.Backend) proxy.Proxy {
		path := b.blockPath(b.backendPaths[remote], byName["qos/ratelimit/proxy"])
		b.every(path, remote.ExtraConfig[limitproxy.Namespace])
		return next(remote)
	}
}
