package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Bounds of handshakes with nodes.
const (
	// handshakeTimeout is long because ten thousand nodes that come back together
	// take two cores ten seconds.
	handshakeTimeout = 20 * time.Second
	// maxHandshakes is how many are under way at once. Each has a stack of 16 KiB
	// and more; what waits for its turn waits in the kernel.
	maxHandshakes = 512
	// handshakeTurn is how long the one more waits for its turn before its
	// connection is closed: silent connections must not keep others out.
	handshakeTurn = time.Second
	// maxPlaces is for how many connections that come back from a poll the server
	// works at once. A push makes all nodes come in one moment, and each that the
	// server works for takes some 40 KiB.
	maxPlaces = 512
)

// nodeListener gives connections whose handshake is done to an http.Server, and
// takes them back from polls that were held apart from it (nodeconn.go). The
// handshakes have goroutines of their own, because they make stacks grow, and
// the server's goroutines stay for as long as a node is connected.
//
// It bounds the connections: beyond max they are closed as they come, before
// anything is spent on them.
type nodeListener struct {
	raw    net.Listener
	config *tls.Config
	max    int64
	log    *slog.Logger

	ready  chan net.Conn
	turns  chan struct{} // of handshakes
	places chan struct{} // in the server, for connections that came back
	open   atomic.Int64
	shed   *metrics.Counter

	mu      sync.Mutex
	resting map[*tls.Conn]struct{} // guarded by mu

	ctx   context.Context // until Close
	close context.CancelFunc
	wg    sync.WaitGroup
}

// listenForNodes begins to accept on raw; the caller closes what it returns.
func listenForNodes(raw net.Listener, config *tls.Config, most int, log *slog.Logger, set *metrics.Set) *nodeListener {
	l := &nodeListener{
		raw: raw, config: config, max: int64(most), log: log,
		ready: make(chan net.Conn), turns: make(chan struct{}, maxHandshakes), places: make(chan struct{}, maxPlaces), resting: make(map[*tls.Conn]struct{}),
		shed: set.GetOrCreateCounter(`binnacle_node_shed_total{what="connection"}`),
	}
	l.ctx, l.close = context.WithCancel(context.Background())
	set.GetOrCreateGauge(`binnacle_node_connections`, func() float64 { return float64(l.open.Load()) })
	l.wg.Go(l.acceptAll)
	return l
}

// Accept returns the next connection, a *tls.Conn, or a *nodeConn that was apart.
func (l *nodeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr is where it listens.
func (l *nodeListener) Addr() net.Addr { return l.raw.Addr() }

// Close ends the accepting, closes what waits apart from the server, and returns
// when all handshakes have ended.
func (l *nodeListener) Close() error {
	l.close()
	err := l.raw.Close()
	l.mu.Lock()
	for c := range l.resting {
		c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (l *nodeListener) acceptAll() {
	var pause time.Duration
	for {
		c, err := l.raw.Accept()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			if pause == 0 {
				l.log.Error("cannot accept nodes: they serve on with what they have", "error", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(pause): // no file descriptors: somebody may close one
			}
			continue
		}
		pause = 0
		counted := &countedConn{Conn: c, open: &l.open}
		if l.open.Add(1) > l.max || !l.turn() {
			l.shed.Inc()
			counted.Close()
			continue
		}
		l.wg.Go(func() { l.handshake(counted) })
	}
}

// turn waits for one of the handshakes to end.
func (l *nodeListener) turn() bool {
	select {
	case l.turns <- struct{}{}:
		return true
	default:
	}
	late := time.NewTimer(handshakeTurn)
	defer late.Stop()
	select {
	case l.turns <- struct{}{}:
		return true
	case <-late.C:
	case <-l.ctx.Done():
	}
	return false
}

func (l *nodeListener) handshake(raw net.Conn) {
	c := tls.Server(raw, l.config)
	_ = raw.SetDeadline(time.Now().Add(handshakeTimeout))
	stop := context.AfterFunc(l.ctx, func() { raw.Close() })
	err := c.Handshake()
	stop()
	<-l.turns
	if err != nil {
		l.log.Debug("handshake with a node", "peer", raw.RemoteAddr(), "error", err)
		raw.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		raw.Close()
	}
}

// countedConn counts itself out when it closes.
type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
