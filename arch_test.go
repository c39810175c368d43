package binnacle_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/binnacle-project/binnacle"

// layers lists the folders from the top down. A package may import only what
// stands in a lower layer, or what allowed grants it. The reason is in
// docs/architecture.md: features meet in manager and gateway through
// interfaces that the consumer declares, so that each can be read, tested and
// replaced alone.
var layers = [][]string{
	{"cmd", "e2e", "bench"},
	{"manager", "gateway", "demo"},
	{"otlp", "telemetry/metrics", "telemetry/traces", "telemetry/activity", "membership", "licensing", "rollout", "grafana", "web"},
	{"events"},
	{"api", "state", "otlp/wire"},
	{""}, // the root package
}

// allowed are the imports within a layer that are wanted.
var allowed = map[[2]string]string{
	{"telemetry/activity", "telemetry/metrics"}: "activity writes its roll-ups into the metrics store",
}

func folderOf(pkg string) string {
	rel := strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
	best := ""
	for _, layer := range layers {
		for _, f := range layer {
			if f != "" && (rel == f || strings.HasPrefix(rel, f+"/")) && len(f) > len(best) {
				best = f
			}
		}
	}
	if best == "" && rel != "" {
		return "?" + rel
	}
	return best
}

func layerOf(folder string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, folder) })
}

func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}{{range .Imports}} {{.}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		from := folderOf(fields[0])
		if layerOf(from) < 0 {
			t.Errorf("%s is in no layer: name its folder in arch_test.go and docs/architecture.md", fields[0])
			continue
		}
		for _, imp := range fields[1:] {
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				continue
			}
			to := folderOf(imp)
			if to == from || layerOf(to) > layerOf(from) || allowed[[2]string{from, to}] != "" {
				continue
			}
			t.Errorf("%s imports %s: imports run from cmd to manager and gateway to the features to events to api and state to the root; let the consumer declare an interface instead", fields[0], imp)
		}
	}
}

// TestToolsLinkNoEtcd keeps the programs that run on nodes and on operators'
// machines small: state/etcd is the manager's alone.
func TestToolsLinkNoEtcd(t *testing.T) {
	for _, program := range []string{"binnacle", "binnacle-gateway"} {
		out, err := exec.Command("go", "list", "-deps", "./cmd/"+program).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for pkg := range strings.Lines(string(out)) {
			if strings.HasPrefix(pkg, "go.etcd.io/") {
				t.Errorf("%s links %s, some 15 MB with the rest of it: what it needs of state is in package state, which has none of it", program, strings.TrimSpace(pkg))
				break
			}
		}
	}
}

// TestPackageComments insists that each package opens with a paragraph that
// says what it is.
func TestPackageComments(t *testing.T) {
	docs := map[string]string{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || p != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if path.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		dir := filepath.Dir(p)
		docs[dir] += docText(f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, doc := range docs {
		if len(doc) < 80 {
			t.Errorf("package in %s: its comment has %d characters; want a paragraph that says what it is and what it leaves to others", dir, len(doc))
		}
	}
}

func docText(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return f.Doc.Text()
}
