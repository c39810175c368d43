package control

import (
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// Methods of a worker.
const (
	// MethodApply takes an Apply and answers with a WorkerStatus once the
	// configuration serves.
	MethodApply = "apply"
	// MethodStatus answers with a WorkerStatus.
	MethodStatus = "status"
	// MethodProbe lets the worker ask its own engine for its health page; the
	// answer is a WorkerStatus, the error says what the engine answered.
	MethodProbe = "probe"
	// MethodFlush exports all telemetry now.
	MethodFlush = "flush"
	// MethodInterval takes an Interval.
	MethodInterval = "interval"
	// MethodDrain takes a Drain: stay up, answer "Connection: close".
	MethodDrain = "drain"
	// MethodLimit takes a Limit, also before the first apply.
	MethodLimit = "limit"
	// MethodStop takes a Stop: close the listening sockets, finish what is in
	// flight, flush, exit.
	MethodStop = "stop"
	// MethodAdopt hands copies of the worker's listening sockets to the caller,
	// as files beside a WorkerStatus, in the order of its Listeners.
	MethodAdopt = "adopt"
)

// MethodNode is the one method of an agent's own socket; it answers with the
// shape that gateway/agent documents.
const MethodNode = "node"

// Apply is a configuration to run.
type Apply struct {
	Ref api.RevisionRef `json:"ref"`
	// Config is the effective configuration: merged with the node's own file
	// and resolved.
	Config []byte `json:"config"`
}

// WorkerStatus is a worker's own account.
type WorkerStatus struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Current is what serves now; nil before the first apply.
	Current *api.RevisionRef `json:"current,omitempty"`
	// Serving is true once the listening sockets are being accepted from.
	Serving  bool `json:"serving"`
	Draining bool `json:"draining"`
	// Stopping is true after a stop call.
	Stopping bool `json:"stopping"`
	// Connections counts open client connections.
	Connections int64 `json:"connections"`
	// Goroutines counts those of the process: a swap must leave none behind.
	Goroutines int `json:"goroutines"`
	// QuietSeconds is for how long no request came in, those for health aside,
	// since the worker began to drain; 0 while it does not.
	QuietSeconds float64 `json:"quiet_seconds,omitempty"`
	// Listeners are the addresses of the inherited sockets.
	Listeners []string `json:"listeners"`
	// Relay is where it sends its telemetry, as its Launch says.
	Relay string `json:"relay,omitempty"`
}

// Interval sets how often telemetry is exported.
type Interval struct {
	Seconds float64 `json:"seconds"`
}

// Drain sets or ends draining.
type Drain struct {
	On bool `json:"on"`
}

// Limit sets the fallback rate of a node without a valid lease.
type Limit struct {
	// Rate is in requests per second; null is no limit.
	Rate *float64 `json:"rate"`
}

// Stop ends the worker within the given time.
type Stop struct {
	Seconds float64 `json:"seconds"`
}

// WorkerEnv is the environment variable that carries a Launch as JSON from the
// agent to the worker that it starts.
const WorkerEnv = "BINNACLE_WORKER"

// Launch is what a worker is started with.
type Launch struct {
	// Files names the inherited descriptors from 3 on: "control" is the
	// listening control socket, "crash" the file for a panic's text, the others
	// are listening sockets for traffic.
	Files []string `json:"files"`
	// Socket is the path of the control socket, which the worker removes at a
	// clean end.
	Socket string `json:"socket"`
	// Relay is the base URL of the agent's OTLP relay for this worker. Without it
	// the worker exports to no agent.
	Relay string `json:"relay"`
	// Instance tells this process from the node's others in telemetry.
	Instance string `json:"instance"`
	Name     string `json:"name,omitempty"`
	// IntervalSeconds is the export interval to begin with.
	IntervalSeconds float64 `json:"interval"`
	// DieWithParent ends the worker when the agent is gone.
	DieWithParent bool `json:"die_with_parent"`
	// DrainDelaySeconds is how long a worker serves on, not ready, after a
	// SIGTERM, unless the agent says stop before.
	DrainDelaySeconds float64 `json:"drain_delay_seconds,omitempty"`
	// LogFormat is text or json, LogLevel as slog.Level prints it.
	LogFormat string `json:"log_format"`
	LogLevel  string `json:"log_level"`
}

// Names of descriptors in Launch.Files.
const (
	FileControl = "control"
	FileCrash   = "crash"
	FileTraffic = "traffic"
)
