package agent

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// VerifyLease checks a lease for one node and says from when to when it holds.
type VerifyLease func(token string, clusterKey ed25519.PublicKey, cluster binnacle.ClusterID, id binnacle.NodeID, keyFingerprint string, now time.Time) (api.LeaseInfo, error)

// leaseBox holds the newest lease, verified, in memory and on disk. Nothing
// happens at its end in this version: it is shown. It is safe for concurrent
// use.
type leaseBox struct {
	state  *stateDir
	verify VerifyLease
	log    *slog.Logger

	mu   sync.Mutex // guards what follows
	info *api.LeaseInfo
	fail string // why the last one was refused
}

// load takes up the lease of an earlier run.
func (l *leaseBox) load(id *identity) {
	b, err := l.state.load(fileLease)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		l.log.Warn("the lease on disk cannot be read; the next poll brings one", "err", err)
		return
	}
	l.take(string(b), id, false)
}

// offer takes a lease that came with an answer; the empty one is none.
func (l *leaseBox) offer(token string, id *identity) {
	if token != "" {
		l.take(token, id, true)
	}
}

func (l *leaseBox) take(token string, id *identity, keep bool) {
	if l.verify == nil {
		return
	}
	info, err := l.verify(token, id.clusterKey, id.Cluster, id.NodeID, id.keyFingerprint(), time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if l.fail != err.Error() {
			l.log.Warn("a lease is not valid for this node; the one held goes on", "err", err)
		}
		l.fail = err.Error()
		return
	}
	l.fail = ""
	if l.info != nil && !info.Expires.After(l.info.Expires) && !info.Issued.After(l.info.Issued) {
		return
	}
	l.info = &info
	if keep {
		if err := l.state.save(fileLease, []byte(token)); err != nil {
			l.log.Error("the lease could not be kept on disk", "err", err)
		}
	}
}

// drop forgets the lease of another life.
func (l *leaseBox) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.info, l.fail = nil, ""
	if err := l.state.remove(fileLease); err != nil {
		l.log.Warn("an old lease could not be removed", "err", err)
	}
}

// expires is what a poll says of the lease held; the zero time for none.
func (l *leaseBox) expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.info == nil {
		return time.Time{}
	}
	return l.info.Expires
}

// get returns the lease and why the last one was refused.
func (l *leaseBox) get() (*api.LeaseInfo, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.info == nil {
		return nil, l.fail
	}
	info := *l.info
	return &info, l.fail
}
