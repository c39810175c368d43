package membership

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// Forget removes a node. A valid token enrolls it anew, under another id. One
// that is not registered answers an *api.Problem with status 404.
func (r *Registry) Forget(ctx context.Context, id binnacle.NodeID, actor string) error {
	return r.forget(ctx, id, actor, "")
}

// forget is Forget with a reason for people, which may be empty.
func (r *Registry) forget(ctx context.Context, id binnacle.NodeID, actor, why string) error {
	rec, ok := r.Record(id)
	if !ok {
		return errNoNode(id)
	}
	if err := r.erase(ctx, rec); err != nil {
		return fmt.Errorf("forget node %s: %w", id, err)
	}
	r.announceChange()
	r.log.Info("node forgotten", "node", id, "name", rec.Name, "actor", actor)
	r.tell(ctx, api.Event{Kind: events.NodeForgotten, Group: rec.Group, Node: id, Actor: actor, Message: rec.Name + " was forgotten" + why})
	return nil
}

// erase removes all that is kept of a node.
func (r *Registry) erase(ctx context.Context, rec Record) error {
	r.lifeMu.Lock()
	defer r.lifeMu.Unlock()
	if err := r.o.Store.Txn(ctx, nil, []state.Op{
		state.OpDelete(prefixNodes + string(rec.ID)),
		state.OpDelete(prefixKeys + rec.KeyFP),
		state.OpDelete(prefixLives + string(rec.ID)),
	}); err != nil {
		return err
	}
	return r.reload(ctx, rec.ID)
}

// Revoke bars a node's key and id for good. One that is not registered answers
// an *api.Problem with status 404.
func (r *Registry) Revoke(ctx context.Context, id binnacle.NodeID, actor string) error {
	key := prefixNodes + string(id)
	var rec Record
	for range maxConflicts {
		var version int64
		var err error
		rec, version, err = state.GetJSON[Record](ctx, r.o.Store, key)
		if errors.Is(err, state.ErrNotFound) || err == nil && !rec.Revoked.IsZero() {
			return errNoNode(id)
		} else if err != nil {
			return fmt.Errorf("revoke node %s: %w", id, err)
		}
		rec.Revoked, rec.RevokedBy = time.Now().UTC(), actor
		if _, err = state.UpdateJSON(ctx, r.o.Store, key, rec, version); err == nil {
			break
		} else if !errors.Is(err, state.ErrConflict) {
			return fmt.Errorf("revoke node %s: %w", id, err)
		}
	}
	if err := r.reload(ctx, id); err != nil {
		return fmt.Errorf("revoke node %s: %w", id, err)
	}
	r.announceChange()
	r.log.Info("node revoked", "node", id, "name", rec.Name, "actor", actor)
	r.tell(ctx, api.Event{Kind: events.NodeRevoked, Group: rec.Group, Node: id, Actor: actor, Message: rec.Name + " was revoked: its key is barred"})
	return nil
}

func errNoNode(id binnacle.NodeID) error {
	return problem(http.StatusNotFound, "No such node", "no node %.60q is registered", string(id))
}
