package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Characters of the four backends.
const (
	billingFailShare = 0.03             // of requests answered with 500
	stockPeriod      = time.Minute      // stock goes away once in each
	stockAway        = 10 * time.Second // for so long
	searchMedian     = 60 * time.Millisecond
	searchTailAlpha  = 1.6 // Pareto shape: small means a long tail
	searchMost       = 1500 * time.Millisecond
)

// Backends serves the four backends on the port of addr and the three after it
// until ctx ends.
func Backends(ctx context.Context, addr string, out io.Writer) error {
	host, portText, err := net.SplitHostPort(addr)
	port, perr := strconv.Atoi(portText)
	if err != nil || perr != nil || port < 1 || port > 65532 {
		return fmt.Errorf("--addr %q: want HOST:PORT or :PORT, with three more ports after it", addr)
	}
	at := func(i int) string { return net.JoinHostPort(host, strconv.Itoa(port+i)) }
	stop, err := startBackends(at)
	if err != nil {
		return err
	}
	defer stop()
	for i, name := range backendNames {
		fmt.Fprintf(out, "backend     %-8s http://%s\n", name, at(i))
	}
	<-ctx.Done()
	return nil
}

// startBackends listens for all four, each at its address, and returns what
// stops them.
func startBackends(at func(i int) string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	stop = func() { cancel(); wg.Wait() }
	handlers := map[string]http.HandlerFunc{
		"orders":  answerAfter(fast),
		"search":  answerAfter(longTail),
		"billing": failing(billingFailShare, answerAfter(fast)),
		"stock":   answerAfter(fast),
	}
	for i, name := range backendNames {
		b := &backend{addr: at(i), handler: handlers[name]}
		if err := b.open(); err != nil {
			stop()
			return nil, fmt.Errorf("backend %s: %w", name, err)
		}
		wg.Go(func() {
			if name == "stock" {
				b.comeAndGo(ctx)
			}
			<-ctx.Done()
			b.close()
		})
	}
	return stop, nil
}

// backend is one HTTP server that can leave its port and come back.
type backend struct {
	addr    string
	handler http.Handler
	srv     *http.Server
}

func (b *backend) open() error {
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		return err
	}
	b.srv = &http.Server{Handler: b.handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = b.srv.Serve(ln) }() // ends with close
	return nil
}

// close cuts everything at once: the demo shows what a dead backend looks like.
func (b *backend) close() { _ = b.srv.Close() }

// comeAndGo is away for stockAway at the end of each stockPeriod.
func (b *backend) comeAndGo(ctx context.Context) {
	up := true
	t := time.NewTimer(stockPeriod - stockAway)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if up {
			b.close()
			t.Reset(stockAway)
		} else if err := b.open(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Reset(time.Second) // somebody took the port: try again
			continue
		} else {
			t.Reset(stockPeriod - stockAway)
		}
		up = !up
	}
}

func fast() time.Duration {
	return time.Duration(2+rand.ExpFloat64()*6) * time.Millisecond
}

// longTail draws from a Pareto distribution with the given median.
func longTail() time.Duration {
	xm := float64(searchMedian) / math.Pow(2, 1/searchTailAlpha)
	d := xm / math.Pow(1-rand.Float64(), 1/searchTailAlpha)
	return time.Duration(min(d, float64(searchMost)))
}

// answerAfter answers with a small JSON document after a delay.
func answerAfter(delay func() time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d := delay()
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"path": r.URL.Path, "took_ms": d.Milliseconds(), "items": []string{"anchor", "compass", "sextant"},
		})
	}
}

// failing answers share of the requests with 500.
func failing(share float64, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if rand.Float64() < share {
			http.Error(w, "the ledger is locked", http.StatusInternalServerError)
			return
		}
		next(w, r)
	}
}
