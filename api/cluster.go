package api

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// Cluster answers GET /v1/cluster.
type Cluster struct {
	ID       binnacle.ClusterID `json:"id"`
	Version  string             `json:"version"`
	Started  time.Time          `json:"started"`
	Managers []Manager          `json:"managers"`
	// Nodes counts managed nodes by state; Unmanaged counts the others.
	Nodes     map[NodeState]int `json:"nodes"`
	Unmanaged int               `json:"unmanaged"`
	Activity  *Activity         `json:"activity"`
	License   LicenseSummary    `json:"license"`
	Rollouts  []Rollout         `json:"rollouts"`
}

// Manager is one member of the manager group.
type Manager struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// NodeAddress is host:port of the node API: what a node's own file names.
	NodeAddress string `json:"node_address,omitempty"`
	Leader      bool   `json:"leader"`
}

// Backend is a service that nodes call.
type Backend struct {
	ID       binnacle.BackendID `json:"id"`
	Address  string             `json:"address"`
	Port     int                `json:"port,omitempty"`
	Activity *Activity          `json:"activity"`
	// Callers counts the nodes that called it in the window.
	Callers int `json:"callers"`
	// Nodes is the backend's row of the node x backend matrix; in an Overview
	// only its cells with errors.
	Nodes []ActivityRow `json:"nodes,omitempty"`
	// Endpoints are those whose requests called this backend, as far as the
	// telemetry says so.
	Endpoints []string `json:"endpoints,omitempty"`
}

// Group is a configuration line.
type Group struct {
	Name binnacle.Group `json:"name"`
	// Format is "krakend" or "opaque".
	Format string `json:"format"`
	// Desired is what nodes of the group should run; 0 is their own file.
	Desired   binnacle.Revision `json:"desired"`
	Revisions int               `json:"revisions"`
	Nodes     int               `json:"nodes"`
	Activity  *Activity         `json:"activity"`
}

// List is the envelope of every listing.
type List[T any] struct {
	Items []T `json:"items"`
}

// Token is a join or API token without its secret.
type Token struct {
	ID   string `json:"id"`
	Kind string `json:"kind"` // "join" or "api"
	Name string `json:"name,omitempty"`
	// Role and Rights are set for API tokens.
	Role    string         `json:"role,omitempty"`
	Rights  []string       `json:"rights,omitempty"`
	Group   binnacle.Group `json:"group,omitempty"`
	Created time.Time      `json:"created"`
	Expires time.Time      `json:"expires,omitzero"`
	// Uses counts enrollments; UsesMax 0 means no limit.
	Uses    int `json:"uses"`
	UsesMax int `json:"uses_max"`
}

// NewToken is the body of POST /v1/tokens.
type NewToken struct {
	Kind   string         `json:"kind"`
	Name   string         `json:"name,omitempty"`
	Role   string         `json:"role,omitempty"`
	Rights []string       `json:"rights,omitempty"`
	Group  binnacle.Group `json:"group,omitempty"`
	// ExpiresIn is in seconds; 0 means never.
	ExpiresIn float64 `json:"expires_in,omitempty"`
	UsesMax   int     `json:"uses_max,omitempty"`
}

// CreatedToken answers POST /v1/tokens; Secret is shown this once.
type CreatedToken struct {
	Token
	Secret string `json:"secret"`
}

// TargetGroup is one entry of GET /v1/discovery/http_sd.
//
// Source: Prometheus HTTP service discovery.
type TargetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}
