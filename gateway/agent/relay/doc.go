// Package relay carries telemetry from a node's worker to the manager. It takes OTLP
// on loopback and answers at once, sends under the node's certificate, and keeps on
// disk, within bounds, what the manager does not take now: what was made during an
// outage arrives after it, once and in order, behind what is new. Bodies are never
// decoded.
package relay
