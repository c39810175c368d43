package membership

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// failuresPerPeer attempts to enroll may fail in a row from one address,
	// and one more each failureEvery. A secret has 256 bits and cannot be
	// guessed; this is for noise, and for the log.
	failuresPerPeer = 10
	failureEvery    = 6 * time.Second
	// maxLimitedPeers bounds the memory of the limiter.
	maxLimitedPeers = 4096
)

// peerLimiter bounds failed enrollments by remote address. Those that succeed
// are free: a thousand nodes may stand behind one address.
type peerLimiter struct {
	mu    sync.Mutex // guards peers
	peers map[netip.Prefix]*rate.Limiter
}

func newPeerLimiter() *peerLimiter {
	return &peerLimiter{peers: make(map[netip.Prefix]*rate.Limiter)}
}

// allow answers an *api.Problem with status 429 for a peer that failed too
// often.
func (l *peerLimiter) allow(peer netip.Addr, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lim := l.peers[network(peer)]; lim != nil && lim.TokensAt(now) < 1 {
		return problem(http.StatusTooManyRequests, "Too many failed enrollments",
			"%d enrollments from %s failed in a row: check the join token there and try again in %v", failuresPerPeer, peer, failureEvery)
	}
	return nil
}

// failed counts one failure.
func (l *peerLimiter) failed(peer netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := network(peer)
	lim := l.peers[key]
	if lim == nil {
		if len(l.peers) >= maxLimitedPeers {
			l.evictLocked(now)
		}
		lim = rate.NewLimiter(rate.Every(failureEvery), failuresPerPeer)
		l.peers[key] = lim
	}
	lim.AllowN(now, 1)
}

// evictLocked drops those that have failed least lately, all of them if none
// has recovered: who floods from thousands of addresses is not stopped by this.
func (l *peerLimiter) evictLocked(now time.Time) {
	for key, lim := range l.peers {
		if lim.TokensAt(now) >= failuresPerPeer {
			delete(l.peers, key)
		}
	}
	if len(l.peers) >= maxLimitedPeers {
		clear(l.peers)
	}
}

// network is what counts as one peer: an IPv4 address or an IPv6 /64.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Prefix for an invalid address
	return p
}

// refusal is one kind of refusal to one peer.
type refusal struct {
	peer  netip.Prefix
	title string
}

// refusalLog remembers which refusals were told lately.
type refusalLog struct {
	mu   sync.Mutex // guards told
	told map[refusal]time.Time
}

// tellAgainAfter is how long a refusal is not told again.
const tellAgainAfter = time.Hour

// first reports whether x is to be told, and remembers it.
func (l *refusalLog) first(x refusal, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.told[x]; ok && now.Sub(at) < tellAgainAfter {
		return false
	}
	if len(l.told) >= maxLimitedPeers {
		clear(l.told)
	}
	l.told[x] = now
	return true
}
