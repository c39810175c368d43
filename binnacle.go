// Package binnacle holds the vocabulary that all parts of Binnacle share: the
// types that name clusters, nodes, groups, backends and revisions, and the
// constants for attribute, header and metric names. It holds nothing else, it
// imports nothing of the project, and every package may import it.
package binnacle

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
)

// Version is the version of this build, as reported by every binary, by
// service.version of the project's own telemetry and by /v1/cluster.
const Version = "0.1.0"

// ClusterID names one cluster. The manager makes it at its first start from
// the fingerprint of the cluster key; it never changes.
type ClusterID string

// NodeID names one node for as long as its key lives. The manager assigns it
// at enrollment; it is the service.instance.id of all the node's telemetry.
type NodeID string

// Group names a part of the cluster with its own configuration line.
type Group string

// DefaultGroup is the group of nodes and tokens that name none.
const DefaultGroup Group = "default"

// Revision numbers the configurations of one group: 1, 2, 3 …. Zero is the
// node's own file, which the manager does not know.
type Revision uint64

// String returns the decimal form used in labels, headers and paths.
func (r Revision) String() string { return strconv.FormatUint(uint64(r), 10) }

// BackendID identifies a backend by its server.address and server.port, joined
// as net.JoinHostPort does.
type BackendID string

// MakeBackendID joins address and port. A port of 0 means unknown and is left
// out.
func MakeBackendID(address string, port int) BackendID {
	if port == 0 {
		return BackendID(address)
	}
	return BackendID(net.JoinHostPort(address, strconv.Itoa(port)))
}

// Outcome classes an answer for activity, roll-ups and gates.
type Outcome uint8

// The outcomes. A 4xx is a client error and is counted apart from errors; a
// 429 of the fallback rate is limited: neither an error nor evidence.
const (
	OK Outcome = iota
	ClientError
	Error
	Limited
	NumOutcomes
)

// String returns the value of the outcome label.
func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case ClientError:
		return "client_error"
	case Error:
		return "error"
	case Limited:
		return "limited"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// OutcomeOf classes an HTTP answer by its status code and error.type. A status
// of 0 means that no answer came: a time-out or a transport failure.
//
// Source: DESIGN "Words"; error.type as in the OpenTelemetry HTTP semantic
// conventions.
func OutcomeOf(status int, errorType string) Outcome {
	switch {
	case errorType == ErrorTypeLimit:
		return Limited
	case status >= 500, status == 0:
		return Error
	case status >= 400:
		return ClientError
	case errorType != "":
		return Error
	}
	return OK
}

// Origin says who sent a batch of telemetry, as far as the connection proves
// it. Payloads never outweigh it.
type Origin struct {
	// Managed is true when the sender proved a node's certificate.
	Managed bool
	Cluster ClusterID
	// Node, Group and Revision are set for managed senders. Revision is what
	// the agent said was running when the batch was made.
	Node     NodeID
	Group    Group
	Revision Revision
	// Peer is the remote address; the zero Addr for in-process senders.
	Peer netip.Addr
}

// nameRE is deliberately narrow: names stand in paths, labels, file names and
// DNS answers.
var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckName reports whether s may name a node or a group. kind stands in the
// error, e.g. "group".
func CheckName(kind, s string) error {
	if !nameRE.MatchString(s) {
		return fmt.Errorf("%s name %q is not valid: use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit", kind, s)
	}
	return nil
}
