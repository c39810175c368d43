// Package gateway is the node: the same gateway alone or in a cluster. Without
// the @cluster block in its file it is one process that serves it, with no
// agent, no manager and no limits; with the block it is an agent that runs the
// engine in a worker process. The package reads the block, chooses, and puts
// the parts together; what they do is in gateway/agent, gateway/worker and
// gateway/engine. cmd/binnacle-gateway runs it.
package gateway
