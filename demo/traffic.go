package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// discoverEvery is how often the traffic source asks who is ready.
const discoverEvery = 2 * time.Second

// maxInFlight bounds requests under way; what would exceed it is not sent.
const maxInFlight = 256

// traffic sends requests to the ready nodes in turn, as a load balancer fed by
// the manager's discovery would.
type traffic struct {
	client  *api.Client
	rate    float64
	http    *http.Client
	targets atomic.Pointer[[]string]
}

func newTraffic(c *api.Client, rate float64) *traffic {
	return &traffic{client: c, rate: rate, http: &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}
}

// Traffic sends rate requests per second to the ready nodes until ctx ends, and
// waits for what is under way. A rate of 0 sends nothing.
func Traffic(ctx context.Context, c *api.Client, rate float64) {
	if rate <= 0 {
		return
	}
	newTraffic(c, rate).run(ctx)
}

func (t *traffic) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { t.discover(ctx) })
	slots := make(chan struct{}, maxInFlight)
	tick := time.NewTicker(time.Duration(float64(time.Second) / t.rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		targets := t.targets.Load()
		if targets == nil || len(*targets) == 0 {
			continue
		}
		target := (*targets)[n%len(*targets)]
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			t.send(ctx, "http://"+target+randomPath())
		})
	}
}

// discover keeps targets fresh; while the manager is away the last answer holds.
func (t *traffic) discover(ctx context.Context) {
	tick := time.NewTicker(discoverEvery)
	defer tick.Stop()
	for {
		if groups, err := t.client.Discovery(ctx); err == nil {
			var targets []string
			for _, g := range groups {
				targets = append(targets, g.Targets...)
			}
			slices.Sort(targets)
			t.targets.Store(&targets)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// send makes one request; its outcome is for the gateway's telemetry to tell.
func (t *traffic) send(ctx context.Context, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := t.http.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// randomPath draws an endpoint with the demo's weights; one request in a
// hundred asks for a route that does not exist.
func randomPath() string {
	switch n := rand.IntN(100); {
	case n < 35:
		return fmt.Sprintf("/orders/%d", rand.IntN(1000))
	case n < 55:
		return "/search?q=brass"
	case n < 75:
		return fmt.Sprintf("/invoices/%d", rand.IntN(1000))
	case n < 90:
		return fmt.Sprintf("/stock/%d", rand.IntN(200))
	case n < 99:
		return "/home"
	}
	return "/lost"
}
