package licensing

import (
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// givenLease remembers what a node got, so that another license reaches it
// with its next poll.
type givenLease struct {
	license string
	issued  time.Time
	expires time.Time
	before  time.Time // the end of the lease that the node held then
	at      time.Time
}

// Lease returns a fresh lease for a node when one is due. held is when the
// lease that the node holds ends, zero when it holds none. One is due to a node
// that holds none, that gains a tenth of a lease's life, or whose lease was
// given under another license. A lease ends no sooner than the one that this
// manager gave before it. info is what the node holds afterwards; token is
// empty and due false when there is nothing to send, also when the license
// gives no leases any more.
func (k *Keeper) Lease(id binnacle.NodeID, keyFP string, held, now time.Time) (token string, info api.LeaseInfo, due bool, err error) {
	f := k.current.Load()
	given, known := k.givenTo(id)
	info = k.held(given, known, held)
	if k.dueIn(f, given, known, held, now) != 0 {
		return "", info, false, nil
	}
	l := f.license
	end, _ := leaseExpiry(l, k.o.LeaseLife, now)
	if known && given.expires.Equal(held) && held.After(end) {
		end = held // honored to its end
	}
	issued := now.Truncate(time.Second)
	token, err = issueLease(k.o.ClusterKey, Lease{
		Cluster: k.o.Cluster, Node: id, KeyFP: keyFP, Epoch: k.o.Epoch(), Plan: l.Plan,
		Issued: issued, Expires: end, FallbackRate: l.FallbackRate, Features: l.Features,
	})
	if err != nil {
		return "", info, false, err
	}
	k.leases.Inc()
	k.givenMu.Lock()
	k.given[id] = givenLease{license: l.ID, issued: issued, expires: end, before: held, at: now}
	k.givenMu.Unlock()
	return token, api.LeaseInfo{Issued: issued, Expires: end}, true, nil
}

// Held returns what a node holds whose lease ends at held.
func (k *Keeper) Held(id binnacle.NodeID, held time.Time) api.LeaseInfo {
	given, known := k.givenTo(id)
	return k.held(given, known, held)
}

func (k *Keeper) held(given givenLease, known bool, held time.Time) api.LeaseInfo {
	switch {
	case held.IsZero():
		return api.LeaseInfo{}
	case known && given.expires.Equal(held):
		return api.LeaseInfo{Issued: given.issued, Expires: held}
	}
	return api.LeaseInfo{Issued: held.Add(-k.o.LeaseLife), Expires: held}
}

func (k *Keeper) givenTo(id binnacle.NodeID) (givenLease, bool) {
	k.givenMu.Lock()
	defer k.givenMu.Unlock()
	g, ok := k.given[id]
	return g, ok
}

// RenewIn returns how long a poll of a node whose lease ends at held may wait
// before a fresh lease is due; 0 is at once, and a negative duration is never.
func (k *Keeper) RenewIn(id binnacle.NodeID, held, now time.Time) time.Duration {
	given, known := k.givenTo(id)
	return k.dueIn(k.current.Load(), given, known, held, now)
}

// again is how long a node that was just given a lease and still holds the one
// before waits for another: the answer was lost, or it declines what it gets.
const again = 5 * time.Second

// aheadBy is how far beyond what could be given now a lease must end to be
// taken for one that a wrong clock gave.
const aheadBy = time.Hour

func (k *Keeper) dueIn(f *inForce, given givenLease, known bool, held, now time.Time) time.Duration {
	life := k.o.LeaseLife
	end, ok := leaseExpiry(f.license, life, now)
	if !ok {
		return -1
	}
	same := known && given.expires.Equal(held)
	declined := known && !same && given.before.Equal(held)
	if wait := given.at.Add(min(again, life/10)).Sub(now); declined && wait > 0 && wait <= again {
		return wait
	}
	switch {
	case leaseDue(held, end, now, life),
		same && given.license != f.license.ID,
		!known && held.Add(-life).Before(f.installed.Truncate(time.Second)), // given under a license before
		!same && !declined && held.Sub(now) > life+aheadBy:
		return 0
	}
	if last := f.license.End(); !last.IsZero() && !last.Truncate(time.Second).After(held) {
		return -1 // it lasts to the license's end
	}
	return max(renewAt(held, life).Sub(now), time.Millisecond)
}

// Forget drops what is known of a node's lease.
func (k *Keeper) Forget(id binnacle.NodeID) {
	k.givenMu.Lock()
	defer k.givenMu.Unlock()
	delete(k.given, id)
}
