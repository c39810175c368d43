package activity

import (
	"log/slog"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

// Windows are the sliding windows that are kept, shortest first. Longer ones
// are a PromQL query over the roll-ups.
var Windows = []time.Duration{30 * time.Second, time.Minute, 5 * time.Minute, time.Hour}

// Options sets up an Aggregator. The zero value works in memory alone.
type Options struct {
	// Rollups takes the roll-ups and refills the windows at the start, see
	// OnStore. Nil means no roll-ups.
	Rollups Rollups
	// Dir is where the checkpoint is kept, so that requests_total counts over
	// restarts. Empty means no checkpoint.
	Dir string
	// MaxStreams bounds the streams that are followed at once (default
	// 1,000,000; some 400 bytes each). A stream is one set of attributes of one
	// process. Those over the limit are left out and counted.
	MaxStreams int
	// MaxStreamsPerSender is the same for one sender (default 20,000).
	MaxStreamsPerSender int
	// MaxKeys bounds the aggregates, i.e. nodes, backends, pairs, endpoints and
	// revisions together (default 300,000; some 4 KiB each while busy).
	MaxKeys int

	Log     *slog.Logger
	Metrics *vm.Set
}

// NodeBackend keys the node x backend matrix.
type NodeBackend struct {
	Node    binnacle.NodeID
	Backend binnacle.BackendID
}

// Endpoint keys the endpoints of a group. Route is the template in KrakenD's
// form, "/users/{id}"; it is empty for requests that matched none.
type Endpoint struct {
	Group  binnacle.Group
	Method string
	Route  string
}

// GroupRevision keys the revisions.
type GroupRevision struct {
	Group    binnacle.Group
	Revision binnacle.Revision
}

// Sender is one unmanaged source of telemetry.
type Sender struct {
	// ID is service.instance.id, or service.name@peer where there is none.
	ID      binnacle.NodeID
	Service string
	Version string
	// Peer is the address that the last batch came from.
	Peer string
	// Gateway is true for what speaks a gateway's dialect: only such senders
	// count for the cluster, its endpoints and its backends.
	Gateway  bool
	LastSeen time.Time
}
