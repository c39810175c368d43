package manager

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/api/configschema"
	"github.com/binnacle-project/binnacle/membership"
)

// maxConfigBytes bounds a pushed configuration; rollout checks its own bound
// with a better message, so this one is a little higher.
const maxConfigBytes = 9 << 20

// pathGroup reads and checks {group}.
func pathGroup(r *http.Request) (binnacle.Group, error) {
	g := r.PathValue("group")
	if err := binnacle.CheckName("group", g); err != nil {
		return "", fail(http.StatusBadRequest, "%v", err)
	}
	return binnacle.Group(g), nil
}

func (m *Manager) handleGroups(w http.ResponseWriter, r *http.Request) error {
	groups, err := m.rollout.Groups(r.Context())
	if err != nil {
		return err
	}
	act := m.activity.Groups(shortWindow)
	for i := range groups {
		g := &groups[i]
		g.Nodes = len(m.registry.InGroup(g.Name))
		g.Activity = act[g.Name]
	}
	return writeList(w, groups)
}

func (m *Manager) handleRevisions(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	revs, err := m.rollout.Revisions(r.Context(), g)
	if err != nil {
		return err
	}
	return writeList(w, revs)
}

func (m *Manager) handleCreateRevision(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	conf, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxConfigBytes))
	if err != nil {
		return err
	}
	q := r.URL.Query()
	created, err := m.rollout.CreateRevision(r.Context(), g, api.NewRevision{
		Config: conf, Message: q.Get("message"), Author: principal(r.Context()).Name, DryRun: q.Get("dry_run") == "true", Format: q.Get("format"),
	})
	if err != nil {
		return err
	}
	status := http.StatusCreated
	if created.Existing || q.Get("dry_run") == "true" {
		status = http.StatusOK
	}
	return writeJSONStatus(w, status, created)
}

// handleRevision answers with the revision; its bytes are at /v1/configs/{hash}.
func (m *Manager) handleRevision(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(r.PathValue("n"), 10, 64)
	if err != nil {
		return fail(http.StatusBadRequest, "revision %q: want a number", r.PathValue("n"))
	}
	rev, _, err := m.rollout.Revision(r.Context(), g, binnacle.Revision(n))
	if err != nil {
		return err
	}
	return writeJSON(w, rev)
}

func (m *Manager) handleConfig(w http.ResponseWriter, r *http.Request) error {
	zipped, _, err := m.rollout.Config(r.Context(), r.PathValue("sha256"))
	if err != nil {
		return err
	}
	return writeConfig(w, r, zipped)
}

// writeConfig sends a configuration that is kept compressed; a client that does
// not take gzip gets it inflated.
func writeConfig(w http.ResponseWriter, r *http.Request, zipped []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "private, immutable, max-age=31536000") // named by its hash
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.Itoa(len(zipped)))
		_, err := w.Write(zipped)
		return err
	}
	zr, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, zr)
	return err
}

// handleConfigSchema gives the JSON Schema of configurations, for editors.
func handleConfigSchema(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/schema+json")
	h.Set("Cache-Control", "max-age=3600")
	_, err := w.Write(configschema.JSON)
	return err
}

func (m *Manager) handleStartRollout(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	n, err := readJSON[api.NewRollout](w, r)
	if err != nil {
		return err
	}
	ro, err := m.rollout.StartRollout(r.Context(), g, n, principal(r.Context()).Name)
	if err != nil {
		return err
	}
	return writeJSONStatus(w, http.StatusCreated, ro)
}

func (m *Manager) handleRollback(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	ro, err := m.rollout.Rollback(r.Context(), g, principal(r.Context()).Name)
	if err != nil {
		return err
	}
	return writeJSONStatus(w, http.StatusCreated, ro)
}

func (m *Manager) handleRollouts(w http.ResponseWriter, r *http.Request) error {
	ros, err := m.rollout.Rollouts(r.Context())
	if err != nil {
		return err
	}
	return writeList(w, ros)
}

func (m *Manager) handleRollout(w http.ResponseWriter, r *http.Request) error {
	ro, err := m.rollout.Rollout(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, ro)
}

// steerRollout adapts pause, resume, promote and abort.
func (m *Manager) steerRollout(do func(ctx context.Context, id, actor string) (api.Rollout, error)) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		ro, err := do(r.Context(), r.PathValue("id"), principal(r.Context()).Name)
		if err != nil {
			return err
		}
		return writeJSON(w, ro)
	}
}

func (m *Manager) handleRestartGroup(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	ro, err := m.rollout.RestartGroup(r.Context(), g, principal(r.Context()).Name)
	if err != nil {
		return err
	}
	return writeJSONStatus(w, http.StatusCreated, ro)
}

// handleDiff compares two revisions.
func (m *Manager) handleDiff(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	const most = 1 << 30
	from, err := queryInt(r, "from", 0, 0, most)
	if err != nil {
		return err
	}
	to, err := queryInt(r, "to", 0, 0, most)
	if err != nil {
		return err
	}
	d, err := m.rollout.Diff(r.Context(), g, binnacle.Revision(from), binnacle.Revision(to))
	if err != nil {
		return err
	}
	return writeJSON(w, d)
}

// handleDiffConfig compares what a group should run with the body.
func (m *Manager) handleDiffConfig(w http.ResponseWriter, r *http.Request) error {
	g, err := pathGroup(r)
	if err != nil {
		return err
	}
	conf, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxConfigBytes))
	if err != nil {
		return err
	}
	d, err := m.rollout.DiffConfig(r.Context(), g, conf)
	if err != nil {
		return err
	}
	return writeJSON(w, d)
}

// nodeLabels shows rollouts what operators say of a node.
type nodeLabels struct{ registry *membership.Registry }

func (l nodeLabels) Labels(id binnacle.NodeID) map[string]string {
	rec, _ := l.registry.Record(id)
	return rec.Labels
}
