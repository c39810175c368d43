package api

import "fmt"

// ProblemType is the media type of error bodies (RFC 9457).
const ProblemType = "application/problem+json"

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what, where and what to do.
	Detail string `json:"detail,omitempty"`
	// Faults lists every reason a configuration was refused.
	Faults []Fault `json:"faults,omitempty"`
}

// Error returns the detail, or the title where there is none.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("%d %s", p.Status, p.Title)
	}
	return p.Detail
}
