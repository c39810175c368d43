// Package forward passes received telemetry on to a remote engine over OTLP,
// with bounded queues on disk between, one for each signal: an outage of the
// remote, or a restart here, delays and does not lose, and never slows what is
// received. What no longer fits is dropped from its oldest end and counted.
//
// The manager makes a Forwarder, adds it to the fan-out behind attribution and
// runs it.
package forward
