package manager

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/manager/access"
)

func (m *Manager) handleLicense(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, m.license())
}

// handleSimulate says what would happen to each node, and changes nothing.
func (m *Manager) handleSimulate(w http.ResponseWriter, r *http.Request) error {
	s, err := scenario(r.URL.Query())
	if err != nil {
		return err
	}
	now := time.Now()
	return writeJSON(w, m.keeper.Simulate(s, m.nodes(now, shortWindow), now))
}

func (m *Manager) handleInstallLicense(w http.ResponseWriter, r *http.Request) error {
	in, err := readJSON[api.InstallLicense](w, r)
	if err != nil {
		return err
	}
	if err := m.keeper.Install(r.Context(), in.License, principal(r.Context()).Name); err != nil {
		return err
	}
	return writeJSON(w, m.license())
}

// handleTokens lists join tokens and API tokens, oldest first.
func (m *Manager) handleTokens(w http.ResponseWriter, r *http.Request) error {
	join, err := m.tokens.List(r.Context())
	if err != nil {
		return err
	}
	list := append(join, m.access.List()...)
	slices.SortStableFunc(list, func(a, b api.Token) int { return a.Created.Compare(b.Created) })
	return writeList(w, list)
}

func (m *Manager) handleCreateToken(w http.ResponseWriter, r *http.Request) error {
	n, err := readJSON[api.NewToken](w, r)
	if err != nil {
		return err
	}
	var created api.CreatedToken
	switch n.Kind {
	case "join":
		created, err = m.tokens.Create(r.Context(), n)
	case "api":
		created, err = m.access.Create(r.Context(), n)
	default:
		err = fail(http.StatusBadRequest, "kind %q: want join or api", n.Kind)
	}
	if err != nil {
		return err
	}
	m.record(r.Context(), api.Event{Kind: events.TokenCreated, Actor: principal(r.Context()).Name, Message: "created the " + n.Kind + " token " + created.ID})
	return writeJSONStatus(w, http.StatusCreated, created)
}

func (m *Manager) handleRevokeToken(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	err := m.access.Revoke(r.Context(), id)
	if errors.Is(err, access.ErrNoToken) {
		err = m.tokens.Revoke(r.Context(), id)
	}
	if err != nil {
		return err
	}
	m.record(r.Context(), api.Event{Kind: events.TokenRevoked, Actor: principal(r.Context()).Name, Message: "revoked the token " + id})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// handleLoginCode makes a one-time login with the caller's own role.
func (m *Manager) handleLoginCode(w http.ResponseWriter, r *http.Request) error {
	return writeJSONStatus(w, http.StatusCreated, m.access.NewCode(principal(r.Context())))
}

// LoginCode makes a one-time login as admin, for the line that is printed at
// the start.
func (m *Manager) LoginCode() string {
	return m.access.NewCode(access.Principal{Name: "admin", Role: access.Admin}).Code
}
