package membership

import (
	"context"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Ghosts returns the nodes that left or went down at least after ago, in order.
// The caller owns the slice. An after of zero or less means that there are none.
func (r *Registry) Ghosts(now time.Time, after time.Duration) []binnacle.NodeID {
	if after <= 0 {
		return nil
	}
	var out []binnacle.NodeID
	for _, n := range r.list(now, func(n api.Node, _ Verdict) bool { return isGhost(n, now, after) }) {
		out = append(out, n.ID)
	}
	return out
}

// isGhost takes no node for one that polls: it may have left because its lease
// ended.
func isGhost(n api.Node, now time.Time, after time.Duration) bool {
	return (n.State == api.Left || n.State == api.Down) && now.Sub(latest(n.StateSince, n.LastPoll)) >= after
}

// ForgetGhost forgets a node that Ghosts named, unless it came back meanwhile,
// and reports whether it did. As any forgotten node it may enroll anew with a
// valid token.
func (r *Registry) ForgetGhost(ctx context.Context, id binnacle.NodeID, after time.Duration) (bool, error) {
	now := time.Now()
	n, ok := r.Get(id, now)
	if !ok || after <= 0 || !isGhost(n, now, after) {
		return false, nil
	}
	why := fmt.Sprintf(": %s since %s, longer than %v", n.State, n.StateSince.UTC().Format(time.RFC3339), after)
	if err := r.forget(ctx, id, "manager", why); err != nil {
		return false, err
	}
	return true, nil
}
