package api

import (
	"encoding/json"
	"time"

	"github.com/binnacle-project/binnacle"
)

// Revision describes one immutable configuration of a group.
type Revision struct {
	RevisionRef
	Group   binnacle.Group    `json:"group"`
	Parent  binnacle.Revision `json:"parent"`
	Author  string            `json:"author,omitempty"`
	Message string            `json:"message,omitempty"`
	Created time.Time         `json:"created"`
	// Bytes is the size of the configuration as pushed.
	Bytes int `json:"bytes"`
	// Warnings came up in validation without refusing the revision; one says
	// so when the build was not tried.
	Warnings []Fault `json:"warnings,omitempty"`
}

// NewRevision is what POST /v1/groups/{g}/revisions takes. Config is the request
// body, byte for byte, because the hash is over these bytes; the others are
// query parameters: message, dry_run, format.
type NewRevision struct {
	Config  []byte
	Message string
	// Author is the caller's token name; the manager sets it.
	Author string
	// DryRun validates and stores nothing.
	DryRun bool
	// Format is krakend or opaque, for the first revision of a group, which
	// settles it; empty is what the group has, else krakend.
	Format string
}

// Fault is one reason why a configuration is refused.
type Fault struct {
	// Stage is parse, schema, init or build.
	Stage string `json:"stage"`
	// Line and Column are 1-based, 0 when unknown.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Path is a JSON pointer (RFC 6901), empty when unknown.
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// CreatedRevision answers it. Existing is true when the same bytes were a
// revision already.
type CreatedRevision struct {
	Revision
	Existing bool `json:"existing"`
}

// Event is one entry of the event log.
type Event struct {
	// ID rises with time within a cluster.
	ID   uint64    `json:"id"`
	Time time.Time `json:"time"`
	// Kind is dotted, e.g. "node.joined"; docs list them.
	Kind  string          `json:"kind"`
	Group binnacle.Group  `json:"group,omitempty"`
	Node  binnacle.NodeID `json:"node,omitempty"`
	// Actor is a token's name, a node's id or "manager".
	Actor   string          `json:"actor"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}
