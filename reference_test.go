package binnacle_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the files of docs/reference")

// golden keeps a file of docs/reference equal to what the code says.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("docs", "reference", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the code says: run make reference and look at the change", file)
	}
}

// TestEventReference writes docs/reference/events.md from the constants of
// package events and their comments.
func TestEventReference(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "events/kinds.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Events\n\nMade from `events/kinds.go` by `make reference`; do not edit.\n\n" +
		"Events are listed by `binnacle events` and `GET /v1/events`, and counted in `binnacle_events_total{kind,group}`, so that alerts and\n" +
		"the annotations of the dashboards can select them. A kind keeps its name once it is released.\n\n| kind | what happened |\n|---|---|\n")
	n := 0
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			kind, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			_, text, ok := strings.Cut(strings.ReplaceAll(strings.TrimSpace(v.Doc.Text()), "\n", " "), ": ")
			if !ok {
				t.Errorf("events.%s lacks a comment of the form \"Name: what happened.\"", v.Names[0])
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", kind, strings.TrimSuffix(text, "."))
			n++
		}
	}
	if n < 30 {
		t.Errorf("events/kinds.go has %d kinds; the reference misses some", n)
	}
	golden(t, "events.md", b.String())
}

// metricName is a metric of our own at the beginning of a string literal,
// alone or with labels behind it.
var metricName = regexp.MustCompile(`^(binnacle_[a-z0-9_]+)(\{([^}]*)\}?.*)?$`)

// notMetrics look like metrics and are none.
var notMetrics = map[string]bool{"binnacle_session": true}

// metricsInCode finds the names of metrics in the string literals of all
// packages, with their labels and the folder that counts them.
func metricsInCode(t *testing.T) (labels map[string]string, folder map[string]string) {
	labels, folder = map[string]string{}, map[string]string{}
	label := regexp.MustCompile(`([a-z_]+)=`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "node_modules" || name == "testdata" || path == "grafana" || path == "e2e" || path == "web" || path == "cmd" || path == "bench" || strings.HasPrefix(name, ".") && path != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			s, err := strconv.Unquote(lit.Value)
			if err != nil {
				return true
			}
			m := metricName.FindStringSubmatch(s)
			if m == nil || notMetrics[m[1]] {
				return true
			}
			var names []string
			for _, l := range label.FindAllStringSubmatch(m[3], -1) {
				names = append(names, l[1])
			}
			if have := labels[m[1]]; have == "" {
				labels[m[1]] = strings.Join(names, ", ")
			}
			folder[m[1]] = filepath.Dir(path)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return labels, folder
}

// TestMetricReference writes docs/reference/metrics.md from the names in the
// code and the words of metricWords.
func TestMetricReference(t *testing.T) {
	labels, folder := metricsInCode(t)
	var b strings.Builder
	b.WriteString(`# Metrics

Made from the code and ` + "`metricwords_test.go`" + ` by ` + "`make reference`" + `; do not edit.

Those of the manager are served at ` + "`/metrics`" + ` and copied into its own store every 15 s as ` + "`job=\"binnacle-manager\"`" + `. Those of the agent
(` + "`binnacle_agent_…`" + `, ` + "`binnacle_gossip_…`" + `) and of the gateway come with the node's telemetry as ` + "`job=\"binnacle-agent\"`" + ` and ` + "`job=\"binnacle-gateway\"`" + `, with the
node's id as ` + "`instance`" + `. Beside them stand the usual ` + "`go_…`" + ` and ` + "`process_…`" + ` metrics of each process.
Alert on those that are marked: [operations.md](../operations.md#monitor-the-manager) has rules for them.

## Traffic

Roll-ups that the manager writes from all that nodes send; cumulative native histograms of seconds. Count with ` + "`histogram_count(rate(…))`" + `, take
quantiles with ` + "`histogram_quantile(0.99, sum(rate(…)))`" + `. ` + "`outcome`" + ` is ok, client_error, error or limited.

| series | labels |
|---|---|
| ` + "`group:http_server_request_duration_seconds`" + ` | group, revision, outcome |
| ` + "`node:http_server_request_duration_seconds`" + ` | group, revision, outcome, instance |
| ` + "`endpoint:http_server_request_duration_seconds`" + ` | group, revision, outcome, http_route, http_request_method |
| ` + "`backend:http_client_request_duration_seconds`" + ` | group, revision, outcome, server_address, server_port |
| ` + "`node_backend:http_client_request_duration_seconds`" + ` | group, revision, outcome, server_address, server_port, instance |
| ` + "`http_server_request_duration_seconds`, `http_client_request_duration_seconds`" + ` | as nodes send them: job, instance, group, process, http_route, http_request_method, http_response_status_code, error_type, server_address, server_port; with exemplars |

## Our own

| metric | labels | counted in | meaning |
|---|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words, ok := metricWords[name]
		if !ok {
			t.Errorf("%s (%s) has no line in metricwords_test.go: say in a few words what it counts, then run make reference", name, folder[name])
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", name, labels[name], folder[name], words)
	}
	for name := range metricWords {
		if folder[name] == "" {
			t.Errorf("metricwords_test.go describes %s, which the code does not count", name)
		}
	}
	golden(t, "metrics.md", b.String())
}

// TestLossesAreListed holds the table of docs/operations.md of what can happen to
// telemetry against the metrics that there are: it names none that is gone, and
// none that tells of a loss, a refusal, a wait or a queue is missing.
func TestLossesAreListed(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "### Where telemetry can be lost")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("docs/operations.md has no section on where telemetry can be lost")
	}
	listed := map[string]bool{}
	for _, name := range regexp.MustCompile("binnacle_[a-z_]+").FindAllString(section, -1) {
		listed[name] = true
		if _, ok := metricWords[name]; !ok {
			t.Errorf("docs/operations.md names %s, which is no metric", name)
		}
	}
	about := regexp.MustCompile(`^binnacle_(otlp|metrics|traces|activity|forward|events|own|agent_relay|agent_spool)_`)
	tells := regexp.MustCompile(`refused|reject|dropped|lost|fail|error|damaged|quarantined|corrupt|truncated|invalid|late|gap|ignored|busy|wait|queue|retries|read_only|undecided|early`)
	for name := range metricWords {
		if about.MatchString(name) && tells.MatchString(name) && !listed[name] {
			t.Errorf("docs/operations.md does not say where %s belongs", name)
		}
	}
}
