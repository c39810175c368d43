// Package worker is the child process of a node: it serves traffic with the
// gateway engine on sockets that it inherited, and does what its agent says
// over the control socket (apply, probe, flush, drain, stop). It opens no
// port, knows no manager and keeps nothing on disk, so that a worker can be
// replaced at any time and serves on when its agent is gone. gateway and
// cmd/binnacle-gateway start it; gateway/agent is at the other end. The traffic
// half is also what a standalone gateway runs in one process.
package worker
