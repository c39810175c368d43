package configfile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	koanf "github.com/krakend/krakend-koanf"
	"github.com/luraproject/lura/v2/config"
)

// The same configuration three times.
var forms = map[string]string{
	"krakend.json": `{
  "version": 3, "name": "forms", "port": 8081, "timeout": "2s", "cache_ttl": "1m", "host": ["http://a.example"],
  "extra_config": {"router": {"return_error_msg": true, "remote_ip_headers": ["X-Real-Ip"]}},
  "endpoints": [
    {"endpoint": "/users/{id}", "method": "GET", "extra_config": {"proxy": {"sequential": true}},
     "backend": [
       {"url_pattern": "/u/{id}", "allow": ["id", "name"], "mapping": {"name": "title"},
        "extra_config": {"github.com/devopsfaith/krakend-ratelimit/juju/proxy": {"max_rate": 1.5, "capacity": 2}}},
       {"url_pattern": "/o/{resp0_id}", "group": "orders", "host": ["http://b.example"]}]},
    {"endpoint": "/static", "timeout": "500ms", "backend": [{"url_pattern": "/s"}]}]}`,
	"krakend.yaml": `
version: 3
name: forms
port: 8081
timeout: 2s
cache_ttl: 1m
host: [http://a.example]
extra_config:
  router: {return_error_msg: true, remote_ip_headers: [X-Real-Ip]}
endpoints:
  - endpoint: /users/{id}
    method: GET
    extra_config:
      proxy: {sequential: true}
    backend:
      - url_pattern: /u/{id}
        allow: [id, name]
        mapping: {name: title}
        extra_config:
          github.com/devopsfaith/krakend-ratelimit/juju/proxy: {max_rate: 1.5, capacity: 2}
      - url_pattern: /o/{resp0_id}
        group: orders
        host: [http://b.example]
  - endpoint: /static
    timeout: 500ms
    backend: [{url_pattern: /s}]
`,
	"krakend.toml": `
version = 3
name = "forms"
port = 8081
timeout = "2s"
cache_ttl = "1m"
host = ["http://a.example"]
[extra_config.router]
return_error_msg = true
remote_ip_headers = ["X-Real-Ip"]
[[endpoints]]
endpoint = "/users/{id}"
method = "GET"
[endpoints.extra_config.proxy]
sequential = true
[[endpoints.backend]]
url_pattern = "/u/{id}"
allow = ["id", "name"]
[endpoints.backend.mapping]
name = "title"
[endpoints.backend.extra_config."github.com/devopsfaith/krakend-ratelimit/juju/proxy"]
max_rate = 1.5
capacity = 2
[[endpoints.backend]]
url_pattern = "/o/{resp0_id}"
group = "orders"
host = ["http://b.example"]
[[endpoints]]
endpoint = "/static"
timeout = "500ms"
[[endpoints.backend]]
url_pattern = "/s"
`,
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// luraConfig parses what Load gives.
func luraConfig(t *testing.T, raw []byte) config.ServiceConfig {
	t.Helper()
	cfg, err := config.NewParserWithFileReader(func(string) ([]byte, error) { return raw, nil }).Parse("")
	if err != nil {
		t.Fatalf("%v in\n%s", err, raw)
	}
	return cfg
}

// asJSON makes configurations comparable: without the functions in them, and
// with one kind of number.
func asJSON(t *testing.T, cfg config.ServiceConfig) any {
	t.Helper()
	cfg.AsyncAgents = nil // or empty
	for _, e := range cfg.Endpoints {
		for _, b := range e.Backend {
			b.Decoder = nil
		}
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// All forms mean the same, and what KrakenD's own parser makes of them.
func TestForms(t *testing.T) {
	dir := t.TempDir()
	load := func(name string) any {
		raw, err := Load(write(t, dir, name, forms[name]), nil)
		if err != nil {
			t.Fatalf("Load(%s): %v", name, err)
		}
		return asJSON(t, luraConfig(t, raw))
	}
	want := load("krakend.json")
	for name := range forms {
		if got := load(name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v; want %v", name, got, want)
		}
		theirs, err := koanf.New().Parse(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("krakend-koanf: %s: %v", name, err)
		}
		if got := asJSON(t, theirs); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: krakend-koanf reads %v; we %v", name, got, want)
		}
	}
}

func TestJSONComesBackAsItIs(t *testing.T) {
	for _, content := range []string{forms["krakend.json"], "{broken", ""} {
		raw, err := Load(write(t, t.TempDir(), "krakend.json", content), []string{"HOME=/", "KRAKEND_UNKNOWN=1"})
		if err != nil || string(raw) != content {
			t.Errorf("Load: got %q, %v; want the file", raw, err)
		}
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	raw, err := Load(write(t, t.TempDir(), "krakend.json", forms["krakend.json"]),
		[]string{"KRAKEND_PORT=9090", "KRAKEND_NAME=7", "KRAKEND_TIMEOUT=5s", "KRAKEND_DEBUG_ENDPOINT=true", "KRAKEND_ENDPOINTS=[]"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := luraConfig(t, raw)
	if cfg.Port != 9090 || cfg.Name != "7" || cfg.Timeout.String() != "5s" || !cfg.Debug || len(cfg.Endpoints) != 2 {
		t.Errorf("got port %d, name %q, timeout %v, debug %v, %d endpoints; want 9090, 7, 5s, true, 2", cfg.Port, cfg.Name, cfg.Timeout, cfg.Debug, len(cfg.Endpoints))
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"a.yaml": "a: [", "b.toml": "a = = 1", "c.yml": "- a list\n",
	} {
		if _, err := Load(write(t, dir, name, content), nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Load(%s with %q): error %v; want one that names the file", name, content, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "missing.json"), nil); err == nil {
		t.Error("Load of a missing file: no error")
	}
}

func FuzzToJSON(f *testing.F) {
	for name, content := range forms {
		f.Add(filepath.Ext(name), []byte(content))
	}
	f.Add(".yaml", []byte("a: &a [*a]"))
	f.Add(".toml", []byte("a.b = 1\n[a]\nb = 2"))
	f.Fuzz(func(t *testing.T, ext string, raw []byte) {
		if ext != ".yaml" && ext != ".toml" {
			return
		}
		out, err := ToJSON("f"+ext, raw)
		if err != nil {
			return // refusing is fine
		}
		var doc map[string]any
		if err := json.Unmarshal(out, &doc); err != nil {
			t.Fatalf("ToJSON(%q): %v in %q", raw, err, out)
		}
	})
}
