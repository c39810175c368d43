package activity

import (
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// snapshot is what readers share: all aggregates over one window but the
// matrix, made at most once per fineStep.
type snapshot struct {
	at        int64 // aligned Unix seconds
	cluster   *api.Activity
	groups    map[binnacle.Group]*api.Activity
	nodes     map[binnacle.NodeID]*api.Activity
	backends  map[binnacle.BackendID]*api.Activity
	endpoints map[Endpoint]*api.Activity
	revisions map[GroupRevision]*api.Activity
	rows      [numKinds][]api.ActivityRow
}

// aligned returns now in whole fine steps, Unix seconds.
func aligned(now time.Time) int64 { return now.Unix() / fineStep * fineStep }

// snapshot returns the current one of Windows[i].
func (a *Aggregator) snapshot(i int) *snapshot { return a.snapshotAt(i, aligned(time.Now())) }

func (a *Aggregator) snapshotAt(i int, now int64) *snapshot {
	if s := a.small[i].Load(); s != nil && s.at == now {
		return s
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.small[i].Load(); s != nil && s.at == now {
		return s
	}
	s := a.snapshotLocked(i, now)
	a.small[i].Store(s)
	return s
}

func (a *Aggregator) snapshotLocked(i int, now int64) *snapshot {
	s := &snapshot{
		at:        now,
		groups:    map[binnacle.Group]*api.Activity{},
		nodes:     make(map[binnacle.NodeID]*api.Activity, len(a.senders)),
		backends:  map[binnacle.BackendID]*api.Activity{},
		endpoints: map[Endpoint]*api.Activity{},
		revisions: map[GroupRevision]*api.Activity{},
	}
	for kd := range numKinds {
		if kd == kindNodeBackend {
			continue
		}
		all := a.keys.of(kd)
		s.rows[kd] = a.rowsLocked(all, i, now, false, make([]api.ActivityRow, 0, len(all.keys)))
		for _, r := range s.rows[kd] {
			switch kd {
			case kindCluster:
				s.cluster = r.Activity
			case kindGroup:
				s.groups[r.Group] = r.Activity
			case kindNode:
				s.nodes[r.Node] = r.Activity
			case kindBackend:
				s.backends[r.Backend] = r.Activity
			case kindEndpoint:
				s.endpoints[Endpoint{r.Group, r.Method, r.Route}] = r.Activity
			case kindRevision:
				s.revisions[GroupRevision{r.Group, *r.Revision}] = r.Activity
			}
		}
	}
	return s
}

// rowsLocked appends the rows of some aggregates that have data, in order.
func (a *Aggregator) rowsLocked(some ordered, i int, now int64, final bool, rows []api.ActivityRow) []api.ActivityRow {
	w := int64(Windows[i] / time.Second)
	_, seconds := cut(now, w)
	mem := newSlab(len(some.keys))
	for j, k := range some.keys {
		if s := k.refresh(i, w, now, final, &a.reading); s.some {
			row := some.names[j]
			row.Activity = mem.next().show(s, w, seconds, k.total, k.lastFed)
			rows = append(rows, row)
		}
	}
	return rows
}
