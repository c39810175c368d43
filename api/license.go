package api

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// LicenseSummary is the short form shown with the cluster.
type LicenseSummary struct {
	Plan string `json:"plan"`
	// State is valid, warning, expired or missing.
	State string `json:"state"`
	// Seats is the limit; 0 means unlimited.
	Seats     int       `json:"seats"`
	SeatsUsed int       `json:"seats_used"`
	Expires   time.Time `json:"expires,omitzero"`
}

// License answers GET /v1/license.
type License struct {
	LicenseSummary
	ID       string   `json:"id"`
	Customer string   `json:"customer"`
	Issuer   string   `json:"issuer"`
	Features []string `json:"features"`
	// Cluster is the fingerprint of the only cluster key it serves, or empty.
	Cluster   string    `json:"cluster,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	// Grace is license_grace in seconds.
	Grace float64 `json:"grace"`
	// Left is the time to the expiry in seconds, negative in the grace; null
	// means that it does not end.
	Left *float64 `json:"left"`
	// LeaseLife is how long nodes go on without a manager, in seconds.
	LeaseLife float64 `json:"lease_life"`
	// Leases counts nodes by the state of their lease: valid, warning, fallen.
	Leases map[string]int `json:"leases,omitempty"`
	// OverSeats counts nodes that go on with their lease and get no other.
	OverSeats int `json:"over_seats,omitempty"`
	// FallbackRate is in requests per second per node; null means no limit.
	FallbackRate *float64 `json:"fallback_rate"`
	// Problem says why the newest license file was not taken, if so.
	Problem string `json:"problem,omitempty"`
}

// InstallLicense is the body of PUT /v1/license.
type InstallLicense struct {
	License string `json:"license"`
}

// Simulation answers GET /v1/license/simulate: what would happen to each node.
// Nothing is changed by asking.
type Simulation struct {
	// Scenario says in words what is played through, Summary what comes of it.
	Scenario string `json:"scenario"`
	Summary  string `json:"summary"`
	// Now is when it was asked; Until is the moment that the states are of.
	Now   time.Time `json:"now"`
	Until time.Time `json:"until"`
	// FallbackRate is in requests per second per node; null means no limit.
	FallbackRate *float64 `json:"fallback_rate"`
	// Falls counts nodes without a valid lease at Until; LimitedPerSecond is how
	// many requests per second of today's traffic would get 429 then.
	Falls            int             `json:"falls"`
	LimitedPerSecond float64         `json:"limited_per_second"`
	Nodes            []SimulatedNode `json:"nodes"`
}

// SimulatedNode is one node of a Simulation.
type SimulatedNode struct {
	ID    binnacle.NodeID `json:"id"`
	Name  string          `json:"name"`
	Group binnacle.Group  `json:"group"`
	// State is that of its lease then: none, valid, warning or fallen.
	State string `json:"state"`
	// LeaseExpires is the end of the lease it holds now, Warns when it would
	// begin to warn, Falls when its last lease would end.
	LeaseExpires time.Time `json:"lease_expires,omitzero"`
	Warns        time.Time `json:"warns,omitzero"`
	Falls        time.Time `json:"falls,omitzero"`
	// RequestsPerSecond is what it serves now, LimitedPerSecond what of that is
	// above the fallback rate.
	RequestsPerSecond float64 `json:"requests_per_second"`
	LimitedPerSecond  float64 `json:"limited_per_second"`
	// Effect says in words what happens to it.
	Effect string `json:"effect"`
}

// SeatsMessage is what a full cluster answers, word for word.
const SeatsMessage = "Your current subscription does not allow more nodes running. Please upgrade to add more nodes."
