// Package engine is the gateway itself: it turns a KrakenD configuration into
// an http.Handler on Lura and gin, and replaces it by another one while
// requests are in flight. It holds what belongs to the data path: building,
// checking, merging and resolving configurations, generations and their swap,
// the traffic server and its soft drain. Sockets, processes, enrollment and
// rollouts belong to the node around it (gateway and its other packages),
// which import this one; instruments and exporters live in engine/telemetry.
package engine
