package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/telemetry/activity"
)

// shortWindow is the window of the activity that stands beside things in lists.
const shortWindow = time.Minute

// unmanagedFresh is how long an unmanaged sender counts as alive without data:
// three of the longest usual export intervals.
const unmanagedFresh = 3 * time.Minute

func (m *Manager) handleMe(w http.ResponseWriter, r *http.Request) error {
	p := principal(r.Context())
	return writeJSON(w, map[string]any{"name": p.Name, "role": p.Role.String(), "rights": append([]string{}, p.Rights...)})
}

// cluster is the answer of GET /v1/cluster.
func (m *Manager) cluster(nodes []api.Node) api.Cluster {
	c := api.Cluster{
		ID: m.authority.Cluster(), Version: binnacle.Version, Started: m.started,
		Managers: []api.Manager{{Name: m.name, Address: m.HTTPAddr(), NodeAddress: m.NodeAddr(), Leader: true}},
		Nodes:    map[api.NodeState]int{api.Alive: 0, api.Suspect: 0, api.Unreachable: 0, api.Down: 0, api.Left: 0},
		Activity: m.activity.Cluster(shortWindow),
		License:  m.keeper.Summary(),
		Rollouts: m.rollout.Running(),
	}
	for _, n := range nodes {
		if n.Managed {
			c.Nodes[n.State]++
		} else {
			c.Unmanaged++
		}
	}
	return c
}

func (m *Manager) handleCluster(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, m.cluster(m.nodes(time.Now(), shortWindow)))
}

// nodes returns managed nodes with their lease, ledger and activity, and after
// them the unmanaged senders.
func (m *Manager) nodes(now time.Time, window time.Duration) []api.Node {
	nodes := m.registry.Nodes(now)
	over := m.registry.OverSeats(m.keeper.Seats(), now)
	act := m.activity.Nodes(window)
	for i := range nodes {
		m.complete(&nodes[i], act[nodes[i].ID])
		showLease(&nodes[i], over, now)
	}
	return append(nodes, m.unmanaged(now, act)...)
}

// oneNode is nodes for one alone.
func (m *Manager) oneNode(id binnacle.NodeID, now time.Time, window time.Duration) (api.Node, bool) {
	act := m.activity.Nodes(window)
	if n, ok := m.registry.Get(id, now); ok {
		m.complete(&n, act[id])
		showLease(&n, m.registry.OverSeats(m.keeper.Seats(), now), now)
		return n, true
	}
	for _, n := range m.unmanaged(now, act) {
		if n.ID == id {
			return n, true
		}
	}
	return api.Node{}, false
}

// unmanaged returns the gateways that only send telemetry.
func (m *Manager) unmanaged(now time.Time, act map[binnacle.NodeID]*api.Activity) []api.Node {
	var nodes []api.Node
	for _, s := range m.activity.Unmanaged() {
		if !s.Gateway {
			continue // sends telemetry, but is no gateway
		}
		n := api.Node{
			ID: s.ID, Name: string(s.ID), Version: s.Version, State: api.Alive,
			Conditions: []api.Condition{}, Activity: act[s.ID], Address: s.Peer, LastPoll: s.LastSeen,
		}
		if now.Sub(s.LastSeen) > unmanagedFresh {
			n.State, n.StateSince, n.StateCause = api.Down, s.LastSeen, "no telemetry since then"
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// complete fills in what the registry does not know.
func (m *Manager) complete(n *api.Node, a *api.Activity) {
	n.Lease = m.leases.of(n.ID)
	n.Ledger = m.rollout.Ledger(n.ID)
	n.Activity = a
	if c := drifted(n.Ledger); c != nil && n.State == api.Alive {
		n.Conditions = append(n.Conditions, *c)
	}
	if n.Conditions == nil {
		n.Conditions = []api.Condition{}
	}
}

// driftAfter is how long a node may take to confirm before it counts as drifted.
const driftAfter = time.Minute

// drifted compares what a node should run with what it runs.
func drifted(l *api.Ledger) *api.Condition {
	if l == nil || l.Desired == nil || l.Desired.SHA256 == "" || l.Applied != nil && l.Applied.SHA256 == l.Desired.SHA256 {
		return nil
	}
	if time.Since(l.Desired.Time) < driftAfter {
		return nil
	}
	cause := fmt.Sprintf("should run revision %d", l.Desired.Number)
	if l.Applied != nil {
		cause += fmt.Sprintf(", runs %d", l.Applied.Number)
	}
	if l.Attempted != nil && l.Attempted.Error != "" {
		cause += ": " + l.Attempted.Error
	}
	return &api.Condition{Kind: api.CondDrifted, Cause: cause, Since: l.Desired.Time}
}

func (m *Manager) handleNodes(w http.ResponseWriter, r *http.Request) error {
	window, err := windowOf(r, shortWindow)
	if err != nil {
		return err
	}
	return writeList(w, m.nodes(time.Now(), window))
}

func (m *Manager) handleNode(w http.ResponseWriter, r *http.Request) error {
	window, err := windowOf(r, shortWindow)
	if err != nil {
		return err
	}
	id := binnacle.NodeID(r.PathValue("id"))
	n, ok := m.oneNode(id, time.Now(), window)
	if !ok {
		return fail(http.StatusNotFound, "there is no node %s", id)
	}
	return writeJSON(w, n)
}

// windowOf reads ?window= in seconds; the activity package has the list.
func windowOf(r *http.Request, def time.Duration) (time.Duration, error) {
	s := r.URL.Query().Get("window")
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if d := time.Duration(n) * time.Second; err == nil && slices.Contains(activity.Windows, d) {
		return d, nil
	}
	return 0, fail(http.StatusBadRequest, "window=%q: want 30, 60, 300 or 3600 seconds; longer ones are asked by PromQL", s)
}

func (m *Manager) handleActivity(w http.ResponseWriter, r *http.Request) error {
	window, err := windowOf(r, shortWindow)
	if err != nil {
		return err
	}
	by := r.URL.Query().Get("by")
	if by == "" {
		by = string(api.ByCluster)
	}
	list, err := m.activity.List(api.ActivityBy(by), window)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if node, backend := binnacle.NodeID(q.Get("node")), binnacle.BackendID(q.Get("backend")); node != "" || backend != "" {
		// A copy: the list is shared by all readers.
		list.Rows = slices.DeleteFunc(slices.Clone(list.Rows), func(r api.ActivityRow) bool {
			return node != "" && r.Node != node || backend != "" && r.Backend != backend
		})
	}
	return writeJSON(w, list)
}

// backends lists the backends with their row of the matrix.
func (m *Manager) backends(window time.Duration) []api.Backend {
	act := m.activity.Backends(window)
	list := make([]api.Backend, 0, len(act))
	for id, a := range act {
		host, port := splitBackend(id)
		row := m.activity.BackendNodes(id, window)
		list = append(list, api.Backend{
			ID: id, Address: host, Port: port, Activity: a,
			Callers: callers(row), Nodes: row, Endpoints: m.activity.BackendEndpoints(id),
		})
	}
	slices.SortFunc(list, func(a, b api.Backend) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// callers counts the cells of a backend's row whose node called it.
func callers(row []api.ActivityRow) (n int) {
	for _, r := range row {
		if r.Activity != nil && r.Activity.Requests > 0 {
			n++
		}
	}
	return n
}

// failingOnly leaves the cells with errors: the whole matrix of a large fleet is
// too much to send every two seconds, and GET /v1/activity has the rest.
func failingOnly(list []api.Backend) []api.Backend {
	for i := range list {
		var failing []api.ActivityRow
		for _, r := range list[i].Nodes {
			if r.Activity != nil && r.Activity.Errors > 0 {
				failing = append(failing, r)
			}
		}
		list[i].Nodes = failing
	}
	return list
}

func splitBackend(id binnacle.BackendID) (host string, port int) {
	i := strings.LastIndexByte(string(id), ':')
	if i < 0 {
		return string(id), 0
	}
	port, err := strconv.Atoi(string(id[i+1:]))
	if err != nil {
		return string(id), 0
	}
	return strings.Trim(string(id[:i]), "[]"), port
}

func (m *Manager) handleBackends(w http.ResponseWriter, r *http.Request) error {
	window, err := windowOf(r, shortWindow)
	if err != nil {
		return err
	}
	return writeList(w, m.backends(window))
}

func (m *Manager) handleBackend(w http.ResponseWriter, r *http.Request) error {
	window, err := windowOf(r, shortWindow)
	if err != nil {
		return err
	}
	id := binnacle.BackendID(r.PathValue("id"))
	for _, b := range m.backends(window) {
		if b.ID == id {
			return writeJSON(w, b)
		}
	}
	return fail(http.StatusNotFound, "no node has called a backend %s", id)
}

func (m *Manager) handleDrain(on bool) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		n, err := m.registered(r)
		if err != nil {
			return err
		}
		if err := m.rollout.Drain(r.Context(), n.ID, on, principal(r.Context()).Name); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (m *Manager) handleRestart(w http.ResponseWriter, r *http.Request) error {
	n, err := m.registered(r)
	if err != nil {
		return err
	}
	order, err := m.rollout.Restart(r.Context(), n.ID, principal(r.Context()).Name)
	if err != nil {
		return err
	}
	return writeJSONStatus(w, http.StatusAccepted, api.RestartOrder{ID: order})
}

func (m *Manager) handleForget(w http.ResponseWriter, r *http.Request) error {
	n, err := m.registered(r)
	if err != nil {
		return err
	}
	if err := m.registry.Forget(r.Context(), n.ID, principal(r.Context()).Name); err != nil {
		return err
	}
	if err := m.drop(r.Context(), n.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (m *Manager) handleRevoke(w http.ResponseWriter, r *http.Request) error {
	n, err := m.registered(r)
	if err != nil {
		return err
	}
	if err := m.registry.Revoke(r.Context(), n.ID, principal(r.Context()).Name); err != nil {
		return err
	}
	if err := m.drop(r.Context(), n.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// drop lets every feature forget a node that the registry no longer has, and
// changes the gossip key that it knows.
func (m *Manager) drop(ctx context.Context, id binnacle.NodeID) error {
	return errors.Join(m.dropNode(id), m.keys.Rotate(ctx))
}

// dropNode is drop without the key.
func (m *Manager) dropNode(id binnacle.NodeID) error {
	m.activity.Forget(id)
	m.keeper.Forget(id)
	m.leases.forget(id)
	return m.rollout.Forget(id)
}

// registered returns the managed node of {id}.
func (m *Manager) registered(r *http.Request) (api.Node, error) {
	id := binnacle.NodeID(r.PathValue("id"))
	n, ok := m.registry.Get(id, time.Now())
	if !ok {
		return api.Node{}, fail(http.StatusNotFound, "no managed node has the id %s", id)
	}
	return n, nil
}
