package activity

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Aggregator keeps the live aggregates. All methods are safe for concurrent
// use. What the read methods return is shared by all readers: treat it as
// read-only.
type Aggregator struct{ o Options }

// Open restores the checkpoint of Options.Dir. Run then refills the windows.
func Open(o Options) (*Aggregator, error) { return &Aggregator{o: o}, nil }

// WriteMetrics takes a batch after attribution.
func (a *Aggregator) WriteMetrics(ctx context.Context, o binnacle.Origin, md pmetric.Metrics) {}

// Run ticks windows and writes roll-ups until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// SetBake says that a group is in a bake: its roll-ups are written every 2 s.
func (a *Aggregator) SetBake(g binnacle.Group, on bool) {}

// Forget drops a node's aggregates and its requests_total.
func (a *Aggregator) Forget(id binnacle.NodeID) {}

// Cluster returns the activity of the cluster, nil without data.
func (a *Aggregator) Cluster(w time.Duration) *api.Activity { return nil }

// Step returns the newest step of the charts and the time it ends at.
func (a *Aggregator) Step() (*api.Activity, time.Time) { return nil, time.Time{} }

// Nodes returns the activity of each node, unmanaged ones by their identity.
func (a *Aggregator) Nodes(w time.Duration) map[binnacle.NodeID]*api.Activity { return nil }

// Backends returns the activity of each backend.
func (a *Aggregator) Backends(w time.Duration) map[binnacle.BackendID]*api.Activity { return nil }

// NodeBackends returns the node x backend matrix.
func (a *Aggregator) NodeBackends(w time.Duration) map[NodeBackend]*api.Activity { return nil }

// BackendNodes returns one backend's row of the matrix, ordered by node.
func (a *Aggregator) BackendNodes(id binnacle.BackendID, w time.Duration) []api.ActivityRow {
	return nil
}

// BackendEndpoints lists the routes whose requests called the backend.
func (a *Aggregator) BackendEndpoints(id binnacle.BackendID) []string { return nil }

// Endpoints returns the activity of each endpoint.
func (a *Aggregator) Endpoints(w time.Duration) map[Endpoint]*api.Activity { return nil }

// Revisions returns the activity of each revision.
func (a *Aggregator) Revisions(w time.Duration) map[GroupRevision]*api.Activity { return nil }

// Groups returns the activity of each group; "" is that of unmanaged gateways.
func (a *Aggregator) Groups(w time.Duration) map[binnacle.Group]*api.Activity { return nil }

// List answers GET /v1/activity; a wrong by or window is an *api.Problem.
func (a *Aggregator) List(by api.ActivityBy, w time.Duration) (api.ActivityList, error) {
	return api.ActivityList{}, nil
}

// Unmanaged lists the unmanaged senders, ordered by id.
func (a *Aggregator) Unmanaged() []Sender { return nil }
