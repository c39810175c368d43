package activity

import (
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

const numWindows = 4

// windowOf returns the index of w in Windows, or -1.
func windowOf(w time.Duration) int {
	for i, x := range Windows {
		if x == w {
			return i
		}
	}
	return -1
}

// Cluster returns the activity of the cluster: its nodes and the unmanaged
// senders that speak a gateway's dialect. It is nil without data. Here and
// below w must be one of Windows; for any other there are no data.
func (a *Aggregator) Cluster(w time.Duration) *api.Activity {
	if i := windowOf(w); i >= 0 {
		return a.snapshot(i).cluster
	}
	return nil
}

// Nodes returns the activity of each node that sent data in the window,
// unmanaged ones by their identity.
func (a *Aggregator) Nodes(w time.Duration) map[binnacle.NodeID]*api.Activity {
	if i := windowOf(w); i >= 0 {
		return a.snapshot(i).nodes
	}
	return nil
}

// Backends returns the activity of each backend, as the gateways see it.
func (a *Aggregator) Backends(w time.Duration) map[binnacle.BackendID]*api.Activity {
	if i := windowOf(w); i >= 0 {
		return a.snapshot(i).backends
	}
	return nil
}

// Endpoints returns the activity of each endpoint.
func (a *Aggregator) Endpoints(w time.Duration) map[Endpoint]*api.Activity {
	if i := windowOf(w); i >= 0 {
		return a.snapshot(i).endpoints
	}
	return nil
}

// Revisions returns the activity of each revision of each group.
func (a *Aggregator) Revisions(w time.Duration) map[GroupRevision]*api.Activity {
	if i := windowOf(w); i >= 0 {
		return a.snapshot(i).revisions
	}
	return nil
}

// Groups returns the activity of each group; that of unmanaged gateways stands
// at "".
func (a *Aggregator) Groups(w time.Duration) map[binnacle.Group]*api.Activity {
	if i := windowOf(w); i >= 0 {
		return a.snapshot(i).groups
	}
	return nil
}

// NodeBackends returns the node x backend matrix, ordered by backend, then
// node. Its longer windows move on in steps of their own, see matrixSteps.
func (a *Aggregator) NodeBackends(w time.Duration) []api.ActivityRow {
	if i := windowOf(w); i >= 0 {
		return a.matrixOf(i).rows
	}
	return nil
}

// BackendNodes returns one backend's row of the matrix, ordered by node.
func (a *Aggregator) BackendNodes(id binnacle.BackendID, w time.Duration) []api.ActivityRow {
	rows := a.NodeBackends(w)
	from := sort.Search(len(rows), func(i int) bool { return rows[i].Backend >= id })
	to := from + sort.Search(len(rows)-from, func(i int) bool { return rows[from+i].Backend > id })
	return rows[from:to:to]
}

// BackendEndpoints lists the routes whose requests called the backend, in
// order, as far as the gateways' telemetry says so.
func (a *Aggregator) BackendEndpoints(id binnacle.BackendID) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.endpoints.of(id)
}

// List answers GET /v1/activity. A by or a window that is not kept is an
// *api.Problem that says which ones are.
func (a *Aggregator) List(by api.ActivityBy, w time.Duration) (api.ActivityList, error) {
	i := windowOf(w)
	if i < 0 {
		return api.ActivityList{}, badRequest("there is no window of %g s: ask for 30, 60, 300 or 3600, or query the roll-ups by PromQL for longer ones", w.Seconds())
	}
	kd, ok := map[api.ActivityBy]kind{
		api.ByCluster:     kindCluster,
		api.ByGroup:       kindGroup,
		api.ByNode:        kindNode,
		api.ByBackend:     kindBackend,
		api.ByNodeBackend: kindNodeBackend,
		api.ByEndpoint:    kindEndpoint,
		api.ByRevision:    kindRevision,
	}[by]
	if !ok {
		return api.ActivityList{}, badRequest("activity is not kept by %q: ask by cluster, group, node, backend, node,backend, endpoint or revision", string(by))
	}
	list := api.ActivityList{By: by, Window: w.Seconds()}
	if kd == kindNodeBackend {
		m := a.matrixOf(i)
		list.Time, list.Rows = time.Unix(m.at, 0).UTC(), m.rows
	} else {
		s := a.snapshot(i)
		list.Time, list.Rows = time.Unix(s.at, 0).UTC(), s.rows[kd]
	}
	return list, nil
}

func badRequest(format string, args ...any) error {
	return &api.Problem{Title: "No such activity", Status: http.StatusBadRequest, Detail: fmt.Sprintf(format, args...)}
}

// Step returns the cluster's newest step of the live charts, two seconds, and
// the time it ends at, which is some 12 s ago, or 4 s while nodes export every
// two. It is nil when no node told of that time: a gap, not a zero. LastSeen
// of the activity is the end of the step.
func (a *Aggregator) Step() (*api.Activity, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	end := a.chart.newest(time.Now())
	at := time.Unix(end, 0).UTC()
	k := a.keys.get(keyID{kind: kindCluster})
	if k == nil || k.lastFed < at.UnixNano() {
		return nil, at
	}
	ws := &a.reading
	ws.sum.reset()
	s := sum{h: &ws.sum}
	if step := &a.chart.steps[end/fineStep%chartSteps]; step.end == end {
		s.n = step.n
		s.h.addDense(&step.h)
	}
	var show shown
	s.show(&show, ws)
	return new(row).show(&show, fineStep, fineStep, k.total, at.UnixNano()), at
}

// callers remembers which routes call a backend.
type callers map[binnacle.BackendID]map[string]bool

// maxCallers bounds the routes that are remembered per backend.
const maxCallers = 200

func (c callers) add(id binnacle.BackendID, route string) {
	if route == "" || id == "" {
		return
	}
	routes := c[id]
	if routes == nil {
		routes = map[string]bool{}
		c[id] = routes
	}
	if len(routes) < maxCallers {
		routes[route] = true
	}
}

func (c callers) of(id binnacle.BackendID) []string {
	out := make([]string, 0, len(c[id]))
	for r := range c[id] {
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return strings.Compare(out[i], out[j]) < 0 })
	return out
}
