package grafana

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the generated dashboards")

// TestGolden keeps the files that ship equal to the code that makes them.
func TestGolden(t *testing.T) {
	for name, d := range Dashboards() {
		got, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("dashboards", name)
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from its code: run go test ./grafana -update and look at the change", file)
		}
	}
}

// TestPanels checks what Grafana would only tell its user: ids, places, units,
// descriptions, and that every query parses.
func TestPanels(t *testing.T) {
	for name, d := range Dashboards() {
		ids := map[int]bool{}
		taken := map[[2]int]string{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have the id %d", name, p.ID)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: panel %q lies over %q at %d,%d", name, p.Title, other, x, y)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type == "row" {
				continue
			}
			switch p.Type {
			case "timeseries", "stat", "table":
			case "heatmap":
				y, _ := p.Options.(map[string]any)["yAxis"].(map[string]any)
				low, _ := y["min"].(float64)
				high, _ := y["max"].(float64)
				if low <= 0 || high <= low {
					t.Errorf("%s: panel %q: without yAxis.min and max a heatmap of native histograms is blank", name, p.Title)
				}
			default: // histogram panels hang browsers on native histograms
				t.Errorf("%s: panel %q is of type %q", name, p.Title, p.Type)
			}
			if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q lacks a description, a unit or a query", name, p.Title)
			}
			refs := map[string]bool{}
			for _, q := range p.Targets {
				if refs[q.RefID] || q.RefID == "" {
					t.Errorf("%s: panel %q: two queries are %q", name, p.Title, q.RefID)
				}
				refs[q.RefID] = true
				for _, v := range regexp.MustCompile(`\$([a-z]+)`).FindAllStringSubmatch(q.Expr, -1) {
					if !slices.ContainsFunc(d.Templating.List, func(have Variable) bool { return have.Name == v[1] }) {
						t.Errorf("%s: panel %q uses %s, which the dashboard does not offer", name, p.Title, v[0])
					}
				}
				if q.Exemplar && !strings.Contains(q.Expr, serverDuration) {
					t.Errorf("%s: panel %q asks for exemplars of series that have none", name, p.Title)
				}
				if q.Datasource.UID != MetricsUID {
					t.Errorf("%s: panel %q reads from %q, which is not provisioned", name, p.Title, q.Datasource.UID)
				}
				if _, err := parser.NewParser(parser.Options{}).ParseExpr(Substitute(q.Expr)); err != nil {
					t.Errorf("%s: panel %q: %s: %v", name, p.Title, q.Expr, err)
				}
			}
		}
		for _, a := range d.Annotations.List {
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(Substitute(a.Expr)); err != nil {
				t.Errorf("%s: annotation %q: %v", name, a.Name, err)
			}
		}
	}
}

// TestProvisioning checks that the data sources have the ids that panels name.
func TestProvisioning(t *testing.T) {
	b, err := os.ReadFile("provisioning/datasources/binnacle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Datasources []struct{ UID, Type, URL string }
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range f.Datasources {
		got[d.UID] = d.Type
		if !strings.HasPrefix(d.URL, "$BINNACLE_URL/") {
			t.Errorf("data source %s: URL %s does not come from BINNACLE_URL", d.UID, d.URL)
		}
	}
	if got[MetricsUID] != "prometheus" || got[TracesUID] != "jaeger" {
		t.Errorf("provisioned data sources %v; want %s and %s", got, MetricsUID, TracesUID)
	}
}
