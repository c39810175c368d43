package manager

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/web"
)

var update = flag.Bool("update", false, "rewrite docs/reference/api.md")

// apiWords says of each route what it does, and which command of binnacle calls
// it ("–" with a reason where none does). A route without a line here fails the
// test: the command line does all that the API does.
var apiWords = map[string][2]string{
	"GET /healthz":    {"the process lives", "health"},
	"GET /readyz":     {"it serves: green from the end of the start to the begin of the stop", "health"},
	"POST /login":     {"the form of the login page; sets a session cookie", "– for browsers: `binnacle login` prints a link that logs in"},
	"POST /logout":    {"ends the session", "– for browsers"},
	"GET /grafana/":   {"dashboards and provisioning files, for download", "grafana export DIR"},
	"GET /metrics":    {"the manager's own counters, Prometheus text", "api GET /metrics"},
	"GET /v1/me":      {"who the caller is: name, role, rights", "whoami"},
	"GET /v1/cluster": {"id, version, managers, nodes by state, activity, license summary, running rollouts", "status"},

	"GET /v1/nodes":               {"all nodes with state, conditions, lease, ledger, activity; `?window=` 30, 60, 300 or 3600 seconds", "nodes"},
	"GET /v1/nodes/{id}":          {"one of them", "nodes show NODE"},
	"POST /v1/nodes/{id}/drain":   {"keep it up, not ready: traffic moves away", "drain NODE"},
	"POST /v1/nodes/{id}/undrain": {"let it take traffic again", "undrain NODE"},
	"POST /v1/nodes/{id}/restart": {"one graceful restart of its worker", "restart NODE"},
	"POST /v1/nodes/{id}/revoke":  {"bar its key and id for good", "nodes revoke NODE"},
	"DELETE /v1/nodes/{id}":       {"forget it; a valid token enrolls it anew", "nodes forget NODE"},

	"GET /v1/activity":        {"requests, errors, latency; `?by=` cluster, group, node, backend, node,backend, endpoint or revision, `&window=`, `&node=`, `&backend=`", "activity"},
	"GET /v1/activity/stream": {"the overview every two seconds, as server-sent events", "top"},
	"GET /v1/backends":        {"backends with their row of the node x backend matrix", "backends"},
	"GET /v1/backends/{id}":   {"one of them", "backends show BACKEND"},
	"GET /v1/events":          {"the event log; `?kind=` (a prefix), `&group=`, `&node=`, `&after=` (an id), `&limit=`", "events"},
	"GET /v1/events/stream":   {"events as they happen, as server-sent events", "events --follow"},

	"GET /v1/discovery/http_sd": {"ready nodes in Prometheus HTTP SD form; `?group=`", "discovery"},
	"GET /v1/discovery/traefik": {"ready nodes for Traefik's HTTP provider; `?group=`, `&scheme=`, `&health=`", "discovery --format traefik"},

	"GET /v1/groups":                       {"configuration lines", "config groups"},
	"GET /v1/groups/{group}/revisions":     {"the revisions of a group", "config history"},
	"POST /v1/groups/{group}/revisions":    {"validate the body and make a revision; touches no node; `?message=`, `&dry_run=`, `&format=`", "config push FILE"},
	"GET /v1/groups/{group}/revisions/{n}": {"one of them", "config show REVISION"},
	"GET /v1/configs/{sha256}":             {"its bytes", "config show --raw"},
	"GET /v1/groups/{group}/diff":          {"structural diff of two revisions with traffic; `?from=`, `&to=`", "config diff FROM TO"},
	"POST /v1/groups/{group}/diff":         {"the same against the body", "config diff FILE"},
	"POST /v1/groups/{group}/rollouts":     {"start a rollout", "rollout start REVISION"},
	"POST /v1/groups/{group}/rollback":     {"back to the last revision that completed a rollout", "rollback"},
	"POST /v1/groups/{group}/restart":      {"rolling restart", "restart"},
	"GET /v1/rollouts":                     {"all rollouts", "rollout status"},
	"GET /v1/rollouts/{id}":                {"one with steps, verdicts, evidence, report", "rollout status ROLLOUT"},
	"POST /v1/rollouts/{id}/abort":         {"stop it and bring its nodes back", "rollout abort ROLLOUT"},
	"POST /v1/rollouts/{id}/pause":         {"go no further for now", "rollout pause ROLLOUT"},
	"POST /v1/rollouts/{id}/resume":        {"go on", "rollout resume ROLLOUT"},
	"POST /v1/rollouts/{id}/promote":       {"let the step under way pass without its gate", "rollout promote ROLLOUT"},

	"GET /v1/schema/config":    {"the JSON Schema of configurations, for editors", "config schema"},
	"GET /v1/license":          {"state, seats, expiry", "license"},
	"GET /v1/license/simulate": {"what an end of the license, or a manager that is away, would do", "license simulate"},
	"PUT /v1/license":          {"install or upgrade", "license install FILE"},
	"GET /v1/backup":           {"a snapshot of the control state", "backup FILE"},
	"GET /v1/tokens":           {"join and API tokens, without secrets", "token list"},
	"POST /v1/tokens":          {"make one; the secret is shown this once", "token create"},
	"DELETE /v1/tokens/{id}":   {"revoke one", "token revoke ID"},
	"POST /v1/login-codes":     {"a one-time code for `/login?code=`, with the caller's role", "login"},

	"GET /jaeger/api/":         {"the Jaeger query API: `/api/…` as Grafana asks for it, `/api/v3/…` as the newest page of Jaeger does", "traces"},
	"GET /api/traces":          {"searches of Grafana versions that drop the path of their data source's URL", "–"},
	"GET /prometheus/api/v1/":  {"the Prometheus HTTP API", "query PROMQL"},
	"POST /prometheus/api/v1/": {"the same, with the parameters as a form", "query PROMQL"},
}

// TestAPIReference keeps docs/reference/api.md equal to the route table.
func TestAPIReference(t *testing.T) {
	m := startTest(t, nil)
	files := map[string]bool{"/assets/": true}
	for _, p := range append(web.Open(), web.Pages()...) {
		files[p] = true
	}
	var b strings.Builder
	b.WriteString(`# The operator API

Made from the route table of the manager (` + "`manager/routes.go`" + `) by ` + "`make reference`" + `; do not edit.

Served on :9897. Answers are JSON, errors are problem documents (RFC 9457), times are RFC 3339, durations are seconds.
Send ` + "`Authorization: Bearer TOKEN`" + `; callers from loopback without a token are viewers unless ` + "`--anonymous-role`" + ` says otherwise.
What is in no line here is refused. The files of the page itself are left out.

| call | role | what it gives or does | command |
|---|---|---|---|
`)
	used := map[string]bool{}
	for _, rt := range m.routes() {

		method, path, _ := strings.Cut(rt.pattern, " ")
		if method == "GET" && files[path] || strings.HasSuffix(path, "{$}") {
			continue
		}
		words, ok := apiWords[rt.pattern]
		if !ok {
			t.Errorf("%s has no line in apiWords: say what it does and which command calls it, then run make reference", rt.pattern)
			continue
		}
		used[rt.pattern] = true
		role := rt.role.String()
		if rt.role == access.Nobody && rt.right == "" {
			role = "open"
		}
		if rt.right != "" {
			role += " or `" + rt.right + "`"
		}
		command := words[1]
		if !strings.HasPrefix(command, "–") {
			command = "`binnacle " + command + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", rt.pattern, role, words[0], command)
	}
	for p := range apiWords {
		if !used[p] {
			t.Errorf("apiWords names %s, which is no route", p)
		}
	}
	const file = "../docs/reference/api.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s is not what the code says: run make reference and look at the change", file)
	}
}
