package metrics

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// errSeriesLimit is wrapped by the error of a point that would create a series
// over a limit.
var errSeriesLimit = errors.New("series limit reached")

// An owner is who pays for series: an instance, and above it, for senders
// without a certificate, the budget they share.
type owner struct {
	name     string
	instance string
	managed  bool
	max      int64
	parent   *owner
	series   atomic.Int64 // series of the owner that are in memory
	points   atomic.Int64 // cache entries of the owner, see cache.go

	limited atomic.Bool // its limit was hit since it was last looked at
	told    time.Time   // of its limit; guarded by table.ownersMu
}

// room returns an error if one more series of o would be over a limit, and
// notes whose limit it is.
func (t *table) room(o *owner) error {
	for ; o != nil; o = o.parent {
		if n := o.series.Load(); n >= o.max {
			o.limited.Store(true)
			t.limited.Store(true)
			return fmt.Errorf("%w: %s has %d series, at most %d are allowed", errSeriesLimit, o.name, n, o.max)
		}
	}
	return nil
}

func (o *owner) addSeries(d int64) {
	for ; o != nil; o = o.parent {
		o.series.Add(d)
	}
}

// table holds one Series for each label set that senders write, so that two
// ways to say the same series (attributes in another order, names that become
// equal) share reference, delta state and budget. It learns from the TSDB when
// a series leaves memory. Safe for concurrent use.
type table struct {
	head *tsdb.Head // for the total; set before the first use
	all  *owner     // holds the limit of all series; head counts them

	limited atomic.Bool // some owner's limited is set

	shards [tableShards]tableShard

	ownersMu  sync.Mutex
	owners    map[string]*owner
	unmanaged *owner
	perOwner  int64
}

// tableShard is a hash table whose chains run through the series.
type tableShard struct {
	mu      sync.Mutex
	buckets []seriesChain // a power of two; by label hash, without the bits that chose the shard
	n       int
}

type seriesChain struct {
	head *Series
	marks
}

const (
	tableShards    = 64
	tableShardBits = 6
)

// at returns the chain for a label hash.
func (sh *tableShard) at(hash uint64) *seriesChain {
	return &sh.buckets[hash>>tableShardBits&uint64(len(sh.buckets)-1)]
}

func (sh *tableShard) add(s *Series) {
	if sh.n >= len(sh.buckets) {
		sh.grow()
	}
	sh.link(s)
	sh.n++
}

func (sh *tableShard) link(s *Series) {
	chain := sh.at(s.hash)
	s.next, chain.head = chain.head, s
	chain.mark(s.hash)
}

func (sh *tableShard) grow() {
	old := sh.buckets
	sh.buckets = make([]seriesChain, max(16, 2*len(old)))
	for _, chain := range old {
		for s := chain.head; s != nil; {
			next := s.next
			sh.link(s)
			s = next
		}
	}
}

func newTable(o Options) *table {
	t := &table{
		all:       &owner{name: "all senders together", max: int64(o.MaxSeries)},
		perOwner:  int64(o.MaxSeriesPerInstance),
		owners:    map[string]*owner{},
		unmanaged: &owner{name: "all unmanaged senders together", max: int64(o.MaxSeriesUnmanaged)},
	}
	for i := range t.shards {
		t.shards[i].grow()
	}
	return t
}

// ownerOf returns the owner for an instance, making it at need. The caller
// holds it by a resource, and sweep drops those that nothing is counted on.
func (t *table) ownerOf(managed bool, instance string) *owner {
	key := "u" + instance
	if managed {
		key = "m" + instance
	}
	t.ownersMu.Lock()
	defer t.ownersMu.Unlock()
	if o := t.owners[key]; o != nil {
		return o
	}
	o := &owner{name: fmt.Sprintf("instance %q", instance), instance: instance, managed: managed, max: t.perOwner}
	if !managed {
		o.parent = t.unmanaged
	}
	t.owners[key] = o
	return o
}

// intern returns the Series of lbls, making it on the account of o at need, in
// room, which must be empty. It keeps lbls.
func (t *table) intern(room *Series, lbls labels.Labels, o *owner) (*Series, error) {
	hash := lbls.Hash()
	sh := &t.shards[hash%tableShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	chain := sh.at(hash)
	for s := chain.head; s != nil && chain.has(hash); s = s.next {
		if s.hash == hash && labels.Equal(s.lbls, lbls) {
			s.shared.Store(true)
			return s, nil
		}
	}
	if n := int64(t.head.NumSeries()); n >= t.all.max {
		t.all.limited.Store(true)
		t.limited.Store(true)
		return nil, fmt.Errorf("%w: %d series are in memory, at most %d are allowed", errSeriesLimit, n, t.all.max)
	}
	if err := t.room(o); err != nil {
		return nil, err
	}
	room.lbls, room.owner, room.hash = lbls, o, hash
	sh.add(room)
	o.addSeries(1)
	return room, nil
}

// remove takes the series of lbls out of the table if its reference is ref, and
// tells its points by dead.
func (t *table) remove(lbls labels.Labels, ref uint64) {
	hash := lbls.Hash()
	sh := &t.shards[hash%tableShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at := &sh.at(hash).head
	for s := *at; s != nil; at, s = &s.next, s.next {
		if s.hash != hash || s.ref.Load() != ref || !labels.Equal(s.lbls, lbls) {
			continue
		}
		*at, s.next = s.next, nil
		sh.n--
		s.dead.Store(true)
		s.owner.addSeries(-1)
		return
	}
}

// dropUnborn removes the series that no sample was ever stored for (all their
// points were refused), except those made since the last call.
func (t *table) dropUnborn() {
	for i := range t.shards {
		sh := &t.shards[i]
		var unborn []*Series
		sh.mu.Lock()
		for _, chain := range sh.buckets {
			for s := chain.head; s != nil; s = s.next {
				if s.ref.Load() != 0 {
					continue
				}
				if s.aged {
					unborn = append(unborn, s)
				}
				s.aged = true
			}
		}
		sh.mu.Unlock()
		for _, s := range unborn {
			t.remove(s.lbls, 0)
		}
	}
}

// dropOwners forgets owners that nothing is counted on.
func (t *table) dropOwners() {
	t.ownersMu.Lock()
	defer t.ownersMu.Unlock()
	for k, o := range t.owners {
		if o.series.Load() == 0 && o.points.Load() == 0 {
			delete(t.owners, k)
		}
	}
}

// PreCreation lets every series be: limits are kept where the sender can be
// told, in intern.
func (t *table) PreCreation(labels.Labels) error { return nil }

// PostCreation does nothing.
func (t *table) PostCreation(labels.Labels) {}

// PostDeletion is called by the TSDB after it dropped series from memory.
func (t *table) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	for ref, lbls := range gone {
		t.remove(lbls, uint64(ref))
	}
}
