package activity

import (
	"slices"
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

// matrix is the same for node x backend, which is larger by far and read less.
type matrix struct {
	at   int64
	rows []api.ActivityRow // by backend, then node
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
		s.rows[kd] = a.rowsLocked(all, i, now, make([]api.ActivityRow, 0, len(all.keys)))
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
func (a *Aggregator) rowsLocked(some ordered, i int, now int64, rows []api.ActivityRow) []api.ActivityRow {
	w := int64(Windows[i] / time.Second)
	_, seconds := cut(now, w)
	mem := newSlab(len(some.keys))
	for j, k := range some.keys {
		if s := k.refresh(i, w, now, &a.reading); s.some {
			row := some.names[j]
			row.Activity = mem.next().show(s, w, seconds, k.total, k.lastFed)
			rows = append(rows, row)
		}
	}
	return rows
}

// matrixOf returns the matrix of Windows[i] as of now. While Run makes one for
// each step, that of the step before is given until it is there.
func (a *Aggregator) matrixOf(i int) *matrix {
	now := aligned(time.Now())
	a.asked[i].Store(now)
	return a.matrixAt(i, now)
}

func (a *Aggregator) matrixAt(i int, now int64) *matrix {
	oldest := now
	if a.warming.Load() {
		oldest -= fineStep
	}
	if m := a.matrix[i].Load(); m.good(oldest, now) {
		return m
	}
	return a.makeMatrix(i, now)
}

// good reports whether m is of a time between two.
func (m *matrix) good(oldest, now int64) bool {
	return m != nil && m.at >= oldest && m.at <= now
}

// matrixPart is how many pairs are read at once: telemetry does not wait longer
// for the lock than these take, about a millisecond.
const matrixPart = 1000

func (a *Aggregator) makeMatrix(i int, now int64) *matrix {
	a.making.Lock() // others who need it wait for this one
	defer a.making.Unlock()
	if m := a.matrix[i].Load(); m.good(now, now) {
		return m
	}
	a.mu.Lock()
	all, drops := a.keys.of(kindNodeBackend), a.keys.drops
	a.mu.Unlock()
	m := &matrix{at: now, rows: make([]api.ActivityRow, 0, len(all.keys))}
	for from := 0; from < len(all.keys); from += matrixPart {
		to := min(from+matrixPart, len(all.keys))
		a.mu.Lock()
		m.rows = a.rowsLocked(ordered{all.keys[from:to], all.names[from:to]}, i, now, m.rows)
		a.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys.drops == drops { // or it may hold a node that was forgotten meanwhile
		a.matrix[i].Store(m)
	}
	return m
}

// warmAlways bounds the aggregates up to which the sums of all windows are kept
// without having been asked for: see BenchmarkReadWhileRunning.
const warmAlways = 50_000

// warm makes what is read, so that readers do not wait. Run calls it at each
// step.
func (a *Aggregator) warm() { a.warmAt(aligned(time.Now())) }

func (a *Aggregator) warmAt(now int64) {
	a.mu.Lock()
	always := len(a.keys.byID) <= warmAlways
	a.mu.Unlock()
	var unread []int
	for i, w := range Windows {
		switch asked := now-a.asked[i].Load() <= 60; {
		case asked:
			a.snapshotAt(i, now)
			if !a.matrix[i].Load().good(now, now) {
				a.makeMatrix(i, now)
			}
		case always || w == time.Minute:
			unread = append(unread, i)
		}
	}
	a.refresh(unread, now)
	for _, i := range unread {
		if Windows[i] == time.Minute {
			a.snapshotAt(i, now)
		}
	}
	a.warming.Store(true)
}

// refresh adds up what changed in some of the windows, so that the first who asks
// for one need not wait for that.
func (a *Aggregator) refresh(windows []int, now int64) {
	if len(windows) == 0 {
		return
	}
	for kd := range numKinds {
		a.mu.Lock()
		keys := a.keys.of(kd).keys
		a.mu.Unlock()
		for part := range slices.Chunk(keys, matrixPart) {
			a.mu.Lock()
			for _, k := range part {
				for _, i := range windows {
					k.refresh(i, int64(Windows[i]/time.Second), now, &a.reading)
				}
			}
			a.mu.Unlock()
		}
	}
}
