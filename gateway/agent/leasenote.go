package agent

import (
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

// LeaseNote tells of the lease held.
type LeaseNote struct {
	*api.LeaseInfo
	// State is none, valid, warning, fallen or restored, Since when it began
	// (or the agent).
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Left is what is left of the lease, in seconds.
	Left     float64  `json:"left"`
	Plan     string   `json:"plan,omitempty"`
	Features []string `json:"features,omitempty"`
	// Limit is the fallback rate in force, in requests per second; null is none.
	Limit *float64 `json:"limit"`
	// Note says what follows from it.
	Note string `json:"note"`
	// Refused says why the newest lease offered was not taken.
	Refused string `json:"refused,omitempty"`
}

// noteOf says what a standing means, in one sentence.
func noteOf(s licensing.Standing) string {
	switch s.State {
	case licensing.LeaseNone:
		return "no lease held: the free limits apply, " + rateText(s.Limit) + ", until a manager gives one"
	case licensing.LeaseFallen:
		return "ended: " + rateText(s.Limit) + ", no gossip, no remote configuration, until a manager gives another"
	case licensing.LeaseWarning:
		return fmt.Sprintf("%s left, and no manager has renewed it: the node stays a full member until then", daysText(s.Left))
	case licensing.LeaseRestored:
		return fmt.Sprintf("%s left: a full member again", daysText(s.Left))
	}
	return fmt.Sprintf("%s left: a full member without limits", daysText(s.Left))
}

func rateText(limit *float64) string {
	if limit == nil {
		return "no limit"
	}
	return fmt.Sprintf("%g requests per second at most", *limit)
}

// daysText writes a time as people count it.
func daysText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%d days %d hours", d/day, d%day/time.Hour)
	}
	if d >= 2*time.Hour {
		return d.Round(time.Minute).String()
	}
	return d.Round(time.Second).String()
}

// joinDetail says why a node that has an identity is no member, before what is
// known of the manager.
func joinDetail(why, membership, detail string) string {
	if membership == joinMember {
		return why + "; the manager answers and gives none"
	}
	if detail == "" {
		return why
	}
	return why + "; " + detail
}
