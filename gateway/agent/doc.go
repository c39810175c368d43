// Package agent is the parent process of a node in a cluster. It owns what
// must outlive a worker: the listening sockets, the node's identity, the lease,
// the plan it was given, the last configurations that served, and the relay
// that takes the worker's telemetry. It enrolls, polls its plan, brings the
// worker to it and says so; when no manager answers it goes on with what is on
// disk, because nothing the manager does or fails to do may stop traffic.
//
// One goroutine, the helm, owns the worker and the ledger; polls, reports,
// relay and gossip run beside it and meet it in mailboxes where the newest
// wins. What is decided (is a plan newer, does a crash mean the last good
// configuration, which one is that) is decided by pure functions.
//
// The data path is gateway/worker, the wire to it gateway/control, the wire to
// the manager api. gateway assembles it.
package agent
