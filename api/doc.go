// Package api holds the wire types of both APIs of the manager, the operator
// API on :9897 and the node API on :9899, and Go clients for them. Manager,
// gateway and command line share it; it decides nothing. Errors travel as
// RFC 9457 problem documents, times as RFC 3339, durations as seconds.
package api
