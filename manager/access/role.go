package access

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what a caller may do, each including the ones before it.
type Role int

// String returns the name used in tokens and flags.
func (r Role) String() string {
	if r < 0 || int(r) >= len(roleNames) {
		return fmt.Sprintf("Role(%d)", int(r))
	}
	return roleNames[r]
}

// ParseRole returns the role of a name.
func ParseRole(s string) (Role, error) {
	if i := slices.Index(roleNames, s); i >= 0 {
		return Role(i), nil
	}
	return Nobody, fmt.Errorf("role %q: want one of %s", s, strings.Join(roleNames, ", "))
}

// Principal is who a request comes from. The zero value is nobody.
type Principal struct {
	// Name stands as the actor of events and the author of revisions.
	Name   string
	Role   Role
	Rights []string
}

// May reports whether p has the role, or the right when right is not empty.
func (p Principal) May(role Role, right string) bool {
	return p.Role >= role || right != "" && slices.Contains(p.Rights, right)
}

// The roles.
const (
	Nobody Role = iota
	Viewer
	Operator
	Admin
)

var roleNames = []string{"nobody", "viewer", "operator", "admin"}

// Single rights that a token may have beside its role.
const (
	RightTracesRead = "traces:read" // search and read traces
	RightOTLPWrite  = "otlp:write"  // send telemetry as an unmanaged node
)

var rights = []string{RightTracesRead, RightOTLPWrite}
