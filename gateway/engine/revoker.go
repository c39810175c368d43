package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"sync"
	"time"

	"github.com/krakend/bloomfilter/v2"
	revokerconfig "github.com/krakend/bloomfilter/v2/krakend"
	"github.com/krakend/bloomfilter/v2/rotate"
	bloomrpc "github.com/krakend/bloomfilter/v2/rpc"
)

// maxRevokerBits bounds each of the three filters of a revoker: 512 MiB.
const maxRevokerBits = 1 << 32

// revoker holds the revoked tokens of a process in a rotating bloom filter,
// and serves the RPC by which KrakenD's tools revoke them. Generations with
// the same filter share it: the module would make an empty one at each swap,
// whose port is still taken by the one before.
type revoker struct {
	log    *slog.Logger
	filter *rotate.Bloomfilter
}

// hashMu guards the hashes of all filters: the module's are process-wide and
// keep state, so that two requests at once would get wrong ones, and let a
// revoked token pass.
var hashMu sync.Mutex

// Add revokes elem.
func (r *revoker) Add(elem []byte) {
	hashMu.Lock()
	defer hashMu.Unlock()
	r.filter.Add(elem)
}

// Check reports whether elem is revoked, or, rarely, looks as if it were.
func (r *revoker) Check(elem []byte) bool {
	hashMu.Lock()
	defer hashMu.Unlock()
	return r.filter.Check(elem)
}

// Union is not supported: see the table.
func (r *revoker) Union(any) (float64, error) { return 0, errors.ErrUnsupported }

// checkRevoker says what is wrong with a configuration that the module would
// panic on, or that would take the node's memory.
func checkRevoker(c revokerconfig.Config) error {
	switch {
	case c.N == 0:
		return errors.New("n, the number of tokens, is missing")
	case !(c.P > 0 && c.P < 1):
		return errors.New("p, the share of false positives, must lie between 0 and 1")
	case c.TTL == 0:
		return errors.New("ttl, the life of a token in seconds, is missing")
	case bloomfilter.HashFactoryNames[c.HashName] == nil:
		return fmt.Errorf("hash_name %q is not known; use optimal or default", c.HashName)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("port %d does not exist", c.Port)
	case bloomfilter.M(c.N, c.P) > maxRevokerBits:
		return errors.New("a filter for so many tokens, n, with so few false positives, p, takes more than 512 MiB three times")
	}
	return nil
}

// newRejecter returns the check for revoked tokens of a service; nil without
// one.
func (b *builder) newRejecter() *revokerconfig.Rejecter {
	block, ok := b.cfg.ExtraConfig[revokerconfig.Namespace]
	if !ok {
		return nil
	}
	var c revokerconfig.Config
	if err := remarshal(block, &c); err != nil { // noted with its shape
		return nil
	}
	if err := checkRevoker(c); err != nil {
		b.fault(b.blockPath("", byName["auth/revoker"]), "%v", err)
		return nil
	}
	if b.dry {
		return nil
	}
	r, release := b.shared.revokers.acquire(fmt.Sprintf("%+v", c.Config), func() (*revoker, func()) {
		return openRevoker(c.Config, b.log)
	})
	b.gen.onRelease(release)
	return &revokerconfig.Rejecter{BF: r, TokenKeys: c.TokenKeys, Headers: c.Headers}
}

// openRevoker starts the rotation and the RPC; close ends both.
func openRevoker(c bloomrpc.Config, log *slog.Logger) (*revoker, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &revoker{log: log, filter: rotate.New(ctx, c.Config)}
	var done sync.WaitGroup
	if c.Port != 0 {
		done.Go(func() { r.serve(ctx, c.Port) })
	}
	return r, func() {
		cancel()
		done.Wait()
	}
}

// serve answers RPC on port until ctx ends. The port may still be taken, by a
// generation or a process that drains, so it tries until it gets it.
func (r *revoker) serve(ctx context.Context, port int) {
	var conf net.ListenConfig
	var ln net.Listener
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		var err error
		if ln, err = conf.Listen(ctx, "tcp", fmt.Sprintf(":%d", port)); err == nil {
			break
		}
		r.log.Warn("the port of auth/revoker cannot be opened yet", "port", port, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
	server := rpc.NewServer()
	if err := server.RegisterName("BloomfilterRPC", &revokerRPC{r}); err != nil {
		panic(fmt.Sprintf("BUG: register the revoker: %v", err))
	}
	conns := connections{open: map[net.Conn]bool{}}
	stop := context.AfterFunc(ctx, func() {
		ln.Close()
		conns.close()
	})
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() == nil {
				r.log.Error("the port of auth/revoker is no longer served", "port", port, "err", err)
			}
			break
		}
		if conns.add(conn) {
			conns.wg.Go(func() {
				server.ServeConn(conn) // closes it
				conns.remove(conn)
			})
		}
	}
	ln.Close()
	conns.close()
	conns.wg.Wait()
}

// revokerRPC is what KrakenD's clients call, BloomfilterRPC.Add and .Check.
type revokerRPC struct{ r *revoker }

// Add revokes what in holds.
func (s *revokerRPC) Add(in bloomrpc.AddInput, out *bloomrpc.AddOutput) error {
	for _, e := range in.Elems {
		s.r.Add(e)
	}
	out.Count = len(in.Elems)
	return nil
}

// Check says of each element of in whether it is revoked.
func (s *revokerRPC) Check(in bloomrpc.CheckInput, out *bloomrpc.CheckOutput) error {
	out.Checks = make([]bool, len(in.Elems))
	for i, e := range in.Elems {
		out.Checks[i] = s.r.Check(e)
	}
	return nil
}

// connections are those of one listener.
type connections struct {
	wg     sync.WaitGroup
	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return false
	}
	c.open[conn] = true
	return true
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
}
