package gateway

import (
	"os"
	"path/filepath"
	"testing"
)

// A file in YAML, rendered from a template, is checked as what it becomes.
func TestCheckReadsAllForms(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "settings"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("settings/service.json", `{"host": "http://users.example"}`)
	file := write("krakend.yaml", `
version: 3
extra_config: {telemetry/metrics: {}}
endpoints:
  - endpoint: /users
    extra_config: {validation/cel: [{check_expr: "true"}]}
    backend: [{host: ["{{ .service.host }}"], url_pattern: /u}]
`)
	t.Setenv("FC_ENABLE", "1")
	t.Setenv("FC_SETTINGS", filepath.Join(dir, "settings"))
	faults, warnings, err := Check(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if len(faults) != 1 || faults[0].Path != "/endpoints/0/extra_config/validation~1cel" {
		t.Errorf("faults %+v; want one, of validation/cel", faults)
	}
	if len(warnings) != 1 || warnings[0].Path != "/extra_config/telemetry~1metrics" {
		t.Errorf("warnings %+v; want one, of telemetry/metrics", warnings)
	}
}
