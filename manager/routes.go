package manager

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/binnacle-project/binnacle/grafana"
	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/web"
)

// route is one line of the table of :9897. A request is let through when its
// caller has the role, or the single right where one is named; role Nobody
// means open to all. What is in no line is refused.
type route struct {
	pattern string // http.ServeMux pattern, with its method
	role    access.Role
	right   string
	handler handlerFunc
}

// routes is the deny-by-default table of the operator API and the page. A test
// walks it with every role.
func (m *Manager) routes() []route {
	page := plain(web.Handler())
	prom := plain(m.metrics.Handler(promPrefix))
	jaeger := plain(http.StripPrefix("/jaeger", m.traces.Handler()))
	table := []route{
		// Open to all: signs of life and the way in.
		{"GET /healthz", access.Nobody, "", m.handleHealth},
		{"GET /readyz", access.Nobody, "", m.handleReady},
		{"POST /login", access.Nobody, "", m.handleLogin},
		{"POST /logout", access.Nobody, "", m.handleLogout},

		// Activity and membership.
		{"GET /v1/me", access.Viewer, "", m.handleMe},
		{"GET /v1/cluster", access.Viewer, "", m.handleCluster},
		{"GET /v1/nodes", access.Viewer, "", m.handleNodes},
		{"GET /v1/nodes/{id}", access.Viewer, "", m.handleNode},
		{"GET /v1/activity", access.Viewer, "", m.handleActivity},
		{"GET /v1/activity/stream", access.Viewer, "", m.handleActivityStream},
		{"GET /v1/backends", access.Viewer, "", m.handleBackends},
		{"GET /v1/backends/{id}", access.Viewer, "", m.handleBackend},
		{"GET /v1/discovery/http_sd", access.Viewer, "", m.handleHTTPSD},
		{"GET /v1/discovery/traefik", access.Viewer, "", m.handleTraefik},
		{"GET /v1/events", access.Viewer, "", m.handleEvents},
		{"GET /v1/events/stream", access.Viewer, "", m.handleEventStream},
		{"GET /v1/license", access.Viewer, "", m.handleLicense},
		{"GET /v1/schema/config", access.Viewer, "", handleConfigSchema},
		{"GET /metrics", access.Viewer, "", m.handleMetrics},
		{"GET /grafana/", access.Viewer, "", plain(grafanaFiles())},
		{"GET " + promPrefix + "/", access.Viewer, "", prom},
		{"POST " + promPrefix + "/", access.Viewer, "", prom},

		// Configurations, traces, rollouts, drains.
		{"GET /v1/groups", access.Operator, "", m.handleGroups},
		{"GET /v1/groups/{group}/revisions", access.Operator, "", m.handleRevisions},
		{"POST /v1/groups/{group}/revisions", access.Operator, "", m.handleCreateRevision},
		{"GET /v1/groups/{group}/revisions/{n}", access.Operator, "", m.handleRevision},
		{"GET /v1/configs/{sha256}", access.Operator, "", m.handleConfig},
		{"GET /v1/groups/{group}/diff", access.Operator, "", m.handleDiff},
		{"POST /v1/groups/{group}/diff", access.Operator, "", m.handleDiffConfig},
		{"POST /v1/groups/{group}/rollouts", access.Operator, "", m.handleStartRollout},
		{"POST /v1/groups/{group}/rollback", access.Operator, "", m.handleRollback},
		{"POST /v1/groups/{group}/restart", access.Operator, "", m.handleRestartGroup},
		{"GET /v1/rollouts", access.Operator, "", m.handleRollouts},
		{"GET /v1/rollouts/{id}", access.Operator, "", m.handleRollout},
		{"POST /v1/rollouts/{id}/abort", access.Operator, "", m.steerRollout(m.rollout.Abort)},
		{"POST /v1/rollouts/{id}/pause", access.Operator, "", m.steerRollout(m.rollout.Pause)},
		{"POST /v1/rollouts/{id}/resume", access.Operator, "", m.steerRollout(m.rollout.Resume)},
		{"POST /v1/rollouts/{id}/promote", access.Operator, "", m.steerRollout(m.rollout.Promote)},
		{"GET /v1/license/simulate", access.Operator, "", m.handleSimulate},
		{"POST /v1/nodes/{id}/drain", access.Operator, "", m.handleDrain(true)},
		{"POST /v1/nodes/{id}/undrain", access.Operator, "", m.handleDrain(false)},
		{"POST /v1/nodes/{id}/restart", access.Operator, "", m.handleRestart},
		{"POST /v1/login-codes", access.Operator, "", m.handleLoginCode},
		{"GET /jaeger/api/", access.Operator, access.RightTracesRead, jaeger},
		// Some versions of Grafana search here, whatever path the data source's URL has.
		{"GET /api/traces", access.Operator, access.RightTracesRead, plain(m.traces.Handler())},

		// Tokens, license, forgetting nodes.
		{"PUT /v1/license", access.Admin, "", m.handleInstallLicense},
		{"GET /v1/backup", access.Admin, "", m.handleBackup},
		{"GET /v1/tokens", access.Admin, "", m.handleTokens},
		{"POST /v1/tokens", access.Admin, "", m.handleCreateToken},
		{"DELETE /v1/tokens/{id}", access.Admin, "", m.handleRevokeToken},
		{"DELETE /v1/nodes/{id}", access.Admin, "", m.handleForget},
		{"POST /v1/nodes/{id}/revoke", access.Admin, "", m.handleRevoke},
	}
	for _, p := range web.Open() {
		h := page
		if p == "/login" {
			h = m.loginPage(page)
		}
		table = append(table, route{"GET " + p, access.Nobody, "", h})
	}
	// The page's code tells nothing of the cluster; what it reads is guarded.
	table = append(table, route{"GET /assets/", access.Nobody, "", page})
	for _, p := range web.Pages() {
		table = append(table, route{"GET " + p, access.Viewer, "", page})
	}
	return table
}

// grafanaFiles serves dashboards and provisioning files, with a listing of each
// folder.
func grafanaFiles() http.Handler {
	return http.StripPrefix("/grafana/", http.FileServerFS(grafana.Files))
}

// promPrefix is where the Prometheus HTTP API is mounted.
const promPrefix = "/prometheus/api/v1"

// plain makes a handlerFunc of a handler that answers its errors itself.
func plain(h http.Handler) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// operatorHandler is the whole of :9897: headers, compression, cross-origin
// protection, the table.
func (m *Manager) operatorHandler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range m.routes() {
		mux.Handle(r.pattern, serve(m.log, m.guard(r)))
	}
	mux.Handle("/", serve(m.log, m.guard(route{role: access.Viewer, handler: func(_ http.ResponseWriter, r *http.Request) error {
		return fail(http.StatusNotFound, "there is no %s %s", r.Method, r.URL.Path)
	}})))
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(serve(m.log, func(http.ResponseWriter, *http.Request) error {
		return fail(http.StatusForbidden, "a page of another site may not change anything here")
	}))
	// Strict-Transport-Security holds for all ports of a host, so only a
	// certificate that the operator chose for this host earns it.
	return securityHeaders(compressed(cross.Handler(mux)), m.opts.TLSCert != "")
}

// guard lets a request through when its caller may use the route.
func (m *Manager) guard(rt route) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if rt.role == access.Nobody && rt.right == "" {
			return rt.handler(w, r)
		}
		p, err := m.access.Who(r)
		if errors.Is(err, access.ErrBadToken) {
			return fail(http.StatusUnauthorized, "%v: see --tokens-dir of the manager, or make one with `binnacle token create`", err)
		} else if err != nil {
			return err
		}
		if p.May(rt.role, rt.right) {
			return rt.handler(w, r.WithContext(withPrincipal(r.Context(), p)))
		}
		if p.Role == access.Nobody && len(p.Rights) == 0 {
			if wantsPage(r) {
				http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
				return nil
			}
			w.Header().Set("WWW-Authenticate", "Bearer")
			return fail(http.StatusUnauthorized, "log in at /login, or send Authorization: Bearer TOKEN")
		}
		need := "role " + rt.role.String()
		if rt.right != "" {
			need += " or the right " + rt.right
		}
		return fail(http.StatusForbidden, "%s needs the %s; %s has the role %s", r.URL.Path, need, p.Name, p.Role)
	}
}

// wantsPage reports whether a browser asks for a page and not for data.
func wantsPage(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") && !strings.HasPrefix(r.URL.Path, "/v1/")
}

// contentSecurityPolicy lets the page load its own files only, and nobody frame
// it.
const contentSecurityPolicy = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"

func securityHeaders(next http.Handler, strict bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if strict {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// handleLogin takes a token from the login page's form.
func (m *Manager) handleLogin(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		return fail(http.StatusBadRequest, "the login form: %v", err)
	}
	next := localPath(r.PostFormValue("next"))
	err := m.access.LoginWithToken(w, r, strings.TrimSpace(r.PostFormValue("token")))
	switch {
	case errors.Is(err, access.ErrBadToken):
		http.Redirect(w, r, "/login?error=token&next="+url.QueryEscape(next), http.StatusSeeOther)
		return nil
	case errors.Is(err, access.ErrTooManyLogins):
		http.Redirect(w, r, "/login?error=limit&next="+url.QueryEscape(next), http.StatusSeeOther)
		return nil
	case err != nil:
		return err
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// loginPage logs in the holder of a one-time code, else shows the form.
func (m *Manager) loginPage(page handlerFunc) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		code := r.URL.Query().Get("code")
		if code == "" {
			return page(w, r)
		}
		w.Header().Set("Cache-Control", "no-store")
		switch err := m.access.LoginWithCode(w, r, code); {
		case errors.Is(err, access.ErrBadCode):
			http.Redirect(w, r, "/login?error=code", http.StatusSeeOther)
			return nil
		case errors.Is(err, access.ErrTooManyLogins):
			http.Redirect(w, r, "/login?error=limit", http.StatusSeeOther)
			return nil
		case err != nil:
			return err
		}
		http.Redirect(w, r, localPath(r.URL.Query().Get("next")), http.StatusSeeOther)
		return nil
	}
}

func (m *Manager) handleLogout(w http.ResponseWriter, r *http.Request) error {
	if err := m.access.Logout(w, r); err != nil {
		return err
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// localPath returns s when it is a path on this host, and "/" for anything a
// link from elsewhere could smuggle in.
func localPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.Contains(s, `\`) {
		return "/"
	}
	return s
}

func (m *Manager) handleHealth(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, map[string]string{"status": "ok"})
}

// handleReady is green between the end of the start and the begin of the stop.
func (m *Manager) handleReady(w http.ResponseWriter, _ *http.Request) error {
	if !m.ready.Load() {
		return fail(http.StatusServiceUnavailable, "the manager is starting or stopping")
	}
	return writeJSON(w, map[string]string{"status": "ready"})
}
