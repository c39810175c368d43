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

// matrix is the same for node x backend, which is larger by far and read less.
type matrix struct {
	at   int64
	rows []api.ActivityRow // by backend, then node
}

// matrixRefresh is how old a matrix may be, per window, in seconds.
var matrixRefresh = [numWindows]int64{fineStep, fineStep, 10, 30}

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
		keys := a.keys.of(kd)
		s.rows[kd] = a.rowsLocked(keys, i, now, make([]api.ActivityRow, 0, len(keys)))
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

// rowsLocked returns the rows of keys that have data, in order.
func (a *Aggregator) rowsLocked(keys []*key, i int, now int64, rows []api.ActivityRow) []api.ActivityRow {
	w := int64(Windows[i] / time.Second)
	for _, k := range keys {
		if act := k.read(i, w, now, &a.reading); act != nil {
			row := k.id.row()
			row.Activity = act
			rows = append(rows, row)
		}
	}
	return rows
}

// read returns k's activity over Windows[i], from its last result where that
// is still true.
func (k *key) read(i int, w, now int64, ws *work) *api.Activity {
	if i >= numCached {
		act, _ := k.activity(w, now, ws)
		return act
	}
	c := &k.cached[i]
	if c.at == 0 || now < c.at || now >= c.until {
		act, until := k.activity(w, now, ws)
		*c = cachedActivity{at: now, until: until, act: act}
	}
	return c.act
}

// matrixIdle is the same for a window that nobody has asked for in the last
// minute: the first who does gets one of that age at most, at once.
var matrixIdle = [numWindows]int64{10, fineStep, 30, 120}

// matrixOf returns the current matrix of Windows[i]. While Run makes them, one
// may be late by as long as Run takes to make the next.
func (a *Aggregator) matrixOf(i int) *matrix {
	now := aligned(time.Now())
	a.asked[i].Store(now)
	return a.matrixAt(i, now)
}

func (a *Aggregator) matrixAt(i int, now int64) *matrix {
	age := matrixRefresh[i]
	if a.warming.Load() {
		age = matrixIdle[i] + 2*fineStep
	}
	if m := a.matrix[i].Load(); m.good(now, age) {
		return m
	}
	return a.makeMatrix(i, now)
}

// good reports whether m is less than age seconds old.
func (m *matrix) good(now, age int64) bool {
	return m != nil && now >= m.at && now < m.at+age
}

// matrixPart is how many pairs are read at once: telemetry does not wait longer
// for the lock than these take, about a millisecond.
const matrixPart = 1000

func (a *Aggregator) makeMatrix(i int, now int64) *matrix {
	a.making.Lock() // others who need it wait for this one
	defer a.making.Unlock()
	if m := a.matrix[i].Load(); m.good(now, matrixRefresh[i]) {
		return m
	}
	a.mu.Lock()
	keys, drops := a.keys.of(kindNodeBackend), a.keys.drops
	a.mu.Unlock()
	m := &matrix{at: now, rows: make([]api.ActivityRow, 0, len(keys))}
	for from := 0; from < len(keys); from += matrixPart {
		a.mu.Lock()
		m.rows = a.rowsLocked(keys[from:min(from+matrixPart, len(keys))], i, now, m.rows)
		a.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys.drops == drops { // or it may hold a node that was forgotten meanwhile
		a.matrix[i].Store(m)
	}
	return m
}

// warmAlways bounds the pairs up to which all matrices are kept warm without
// having been asked for: see BenchmarkReadWhileRunning.
const warmAlways = 50_000

// warm makes what is read, so that readers do not wait. Run calls it at each
// step.
func (a *Aggregator) warm() { a.warmAt(aligned(time.Now())) }

func (a *Aggregator) warmAt(now int64) {
	a.mu.Lock()
	always := len(a.keys.byID) <= warmAlways
	a.mu.Unlock()
	for i, w := range Windows {
		asked := now-a.asked[i].Load() <= 60
		if asked || w == time.Minute {
			a.snapshotAt(i, now)
		}
		age := matrixIdle[i]
		if asked {
			age = matrixRefresh[i]
		}
		if (asked || always) && !a.matrix[i].Load().good(now, age) {
			a.makeMatrix(i, now)
		}
	}
	a.warming.Store(true)
}
