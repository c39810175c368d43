package api

import "time"

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
	// FallbackRate is in requests per second per node; null means no limit.
	FallbackRate *float64 `json:"fallback_rate"`
	// Problem says why the newest license file was not taken, if so.
	Problem string `json:"problem,omitempty"`
}

// InstallLicense is the body of PUT /v1/license.
type InstallLicense struct {
	License string `json:"license"`
}

// SeatsMessage is what a full cluster answers, word for word.
const SeatsMessage = "Your current subscription does not allow more nodes running. Please upgrade to add more nodes."
