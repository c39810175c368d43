package engine

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const okBackend = `"backend": [{"host": ["http://127.0.0.1:10"], "url_pattern": "/x"}]`

// badConfigs must be refused, whatever they make Lura, gin or a module do.
var badConfigs = map[string]string{
	"empty":           ``,
	"null":            `null`,
	"array":           `[]`,
	"cut":             `{"version": 3, "endpoints": [`,
	"version":         `{"version": 2}`,
	"port":            `{"version": 3, "port": "80a"}`,
	"duplicate route": `{"version": 3, "endpoints": [{"endpoint": "/u", ` + okBackend + `}, {"endpoint": "/u", ` + okBackend + `}]}`,
	"conflict":        `{"version": 3, "endpoints": [{"endpoint": "/u/{a}", ` + okBackend + `}, {"endpoint": "/u/{b}/x", ` + okBackend + `}]}`,
	"undefined param": `{"version": 3, "endpoints": [{"endpoint": "/u", "backend": [{"host": ["http://127.0.0.1:10"], "url_pattern": "/{nope}"}]}]}`,
	"no host":         `{"version": 3, "endpoints": [{"endpoint": "/u", "backend": [{"url_pattern": "/x"}]}]}`,
	"no backend":      `{"version": 3, "endpoints": [{"endpoint": "/u"}]}`,
	"method":          `{"version": 3, "endpoints": [{"endpoint": "/u", "method": "BREW", ` + okBackend + `}]}`,
	"null endpoint":   `{"version": 3, "endpoints": [null]}`,
	"null backend":    `{"version": 3, "endpoints": [{"endpoint": "/u", "backend": [null]}]}`,
	"jwt ignored":     `{"version": 3, "endpoints": [{"endpoint": "/u", "extra_config": {"auth/validator": {}}, ` + okBackend + `}]}`,
	"async":           `{"version": 3, "async_agent": [{"name": "a"}]}`,
	"encoding":        `{"version": 3, "endpoints": [{"endpoint": "/u", "backend": [{"host": ["http://127.0.0.1:10"], "url_pattern": "/x", "encoding": "protobuf"}]}]}`,
	"trusted proxies": `{"version": 3, "extra_config": {"router": {"trusted_proxies": ["nonsense"]}}}`,
	"router block":    `{"version": 3, "extra_config": {"router": {"use_h2c": "yes"}}}`,
	"sample rate":     `{"version": 3, "extra_config": {"telemetry/opentelemetry": {"trace_sample_rate": 7}}}`,
	"health conflict": `{"version": 3, "extra_config": {"router": {"health_path": "/u"}}, "endpoints": [{"endpoint": "/u", ` + okBackend + `}]}`,
	"invalid path":    `{"version": 3, "endpoints": [{"endpoint": "/__debug/x", ` + okBackend + `}]}`,
}

func TestCheckRefuses(t *testing.T) {
	for name, raw := range badConfigs {
		t.Run(name, func(t *testing.T) {
			faults := Check(t.Context(), []byte(raw))
			if len(faults) == 0 {
				t.Fatalf("Check(%s): no fault", raw)
			}
			for _, f := range faults {
				if f.Stage == "" || f.Message == "" {
					t.Errorf("Check(%s): fault without stage or message: %+v", raw, f)
				}
			}
			t.Log(&BuildError{faults})
		})
	}
}

func TestCheckPositions(t *testing.T) {
	cases := []struct {
		name, raw    string
		stage        string
		line, column int
		path         string
		message      string
	}{
		{"syntax", "{\n  \"version\": 3,\n  \"endpoints\": [}\n}", "parse", 3, 17, "", "invalid character '}'"},
		{"cut", "{\n  \"version\": 3", "parse", 2, 15, "", "unexpected end"},
		{"type", "{\n  \"version\": 3,\n  \"port\": \"80a\"\n}", "parse", 3, 15, "", "port: found a JSON string, want a whole number"},
		{"version", "{\n  \"version\": 2\n}", "init", 2, 14, "/version", "unsupported version: 2"},
		{"init", "{\"version\": 3, \"endpoints\": [\n{\"endpoint\": \"/a\", " + okBackend + "},\n  {\"endpoint\": \"/b\"}]}", "init", 3, 3, "/endpoints/1", "has no backend"},
		{"build", "{\"version\": 3, \"endpoints\": [\n{\"endpoint\": \"/a\", " + okBackend + "},\n  {\"endpoint\": \"/a\", " + okBackend + "}]}", "build", 3, 3, "/endpoints/1", "GET /a: handlers are already registered"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			faults := Check(t.Context(), []byte(c.raw))
			if len(faults) != 1 {
				t.Fatalf("Check: %d faults %+v; want 1", len(faults), faults)
			}
			f := faults[0]
			if f.Stage != c.stage || f.Line != c.line || f.Column != c.column || f.Path != c.path || !strings.Contains(f.Message, c.message) {
				t.Errorf("Check: got %+v; want %s %d:%d %q with %q", f, c.stage, c.line, c.column, c.path, c.message)
			}
		})
	}
}

func TestCheckSaysEveryReason(t *testing.T) {
	raw := `{"version": 3, "endpoints": [
		{"endpoint": "/a", "backend": [{"url_pattern": "/x"}]},
		{"endpoint": "/a", ` + okBackend + `},
		{"endpoint": "/b", "method": "BREW", ` + okBackend + `},
		{"endpoint": "/c", "extra_config": {"auth/validator": {}}, ` + okBackend + `}]}`
	var paths []string
	for _, f := range Check(t.Context(), []byte(raw)) {
		paths = append(paths, f.Path)
	}
	for _, want := range []string{"/endpoints/0/backend/0", "/endpoints/1", "/endpoints/2/method", "/endpoints/3/extra_config/auth~1validator"} {
		if !slices.Contains(paths, want) {
			t.Errorf("Check: faults at %v; want one at %s", paths, want)
		}
	}
	raw = `{"version": 3, "endpoints": [{"endpoint": "/a"}, {"endpoint": "/ok", ` + okBackend + `}, {"endpoint": "/b"}]}`
	if n := len(Check(t.Context(), []byte(raw))); n != 2 {
		t.Errorf("Check: %d init faults; want 2", n)
	}
}

func TestCheckTakesReferences(t *testing.T) {
	raw := `{"version": 3, "endpoints": [{"endpoint": "/u", "backend": [{"host": ["http://${env:HOST}:8080"], "url_pattern": "/${file:/etc/x}"}]}]}`
	if faults := Check(t.Context(), []byte(raw)); faults != nil {
		t.Errorf("Check: %v; want none", &BuildError{faults})
	}
}

func TestCheckGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	if faults := Check(ctx, conf()); len(faults) == 0 {
		t.Error("Check with an ended context: no fault")
	}
}

func TestWarnings(t *testing.T) {
	raw := `{"$schema": "x", "version": 3, "tiemout": "3s", "timeout": "3 s", "extra_config": {
			"@cluster": {}, "telemetry/metrics": {}, "telemetry/opentelemetry": {"exporters": {"prometheus": []}}},
		"endpoints": [
			{"endpoint": "/u", "timeout": "1s", "Cache_TTL": "1m", "@comment": "x", "extra_config": {"vendor/thing": {}}, "backend": [{"hosts": [], "url_pattern": "/x"}]},
			{"endpoint": "/v", "extra_config": {"vendor/thing": {}, "proxy": {}}, ` + okBackend + `}]}`
	want := []string{
		"/extra_config/telemetry~1metrics",
		"/extra_config/telemetry~1opentelemetry/exporters/prometheus",
		"/endpoints/0/backend/0/hosts",
		"/endpoints/0/extra_config/vendor~1thing",
		"/tiemout", "/timeout",
	}
	var got []string
	for _, f := range Warnings([]byte(raw)) {
		got = append(got, f.Path)
		if f.Line == 0 || f.Message == "" {
			t.Errorf("warning without line or message: %+v", f)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("Warnings: at %q; want %q", got, want)
	}
	if w := Warnings([]byte(`{`)); w != nil {
		t.Errorf("Warnings of broken JSON: %v; want none", w)
	}
}

// TestFilesMustLoad on the node itself; a check elsewhere cannot know them.
func TestFilesMustLoad(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.pem")
	for _, raw := range []string{
		`{"version": 3, "tls": {"public_key": "` + none + `", "private_key": "x"}}`,
		`{"version": 3, "tls": {}}`,
		`{"version": 3, "client_tls": {"ca_certs": ["` + none + `"]}}`,
	} {
		if err := New(Options{}).Apply(t.Context(), []byte(raw), ref(1)); err == nil {
			t.Errorf("Apply(%s): no error", raw)
		}
		if faults := Check(t.Context(), []byte(raw)); faults != nil {
			t.Errorf("Check(%s): %v; want none", raw, &BuildError{faults})
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, raw := range badConfigs {
		f.Add([]byte(raw))
	}
	f.Add([]byte(`{"version": 3, "endpoints": [{"endpoint": "/u/{id}", ` + okBackend + `}]}`))
	for _, raw := range corpusConfigs(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			return
		}
		// Both must come back without a panic.
		for _, fault := range append(Check(t.Context(), raw), Warnings(raw)...) {
			if fault.Message == "" || fault.Stage == "" {
				t.Errorf("Check(%q): a fault that says nothing: %+v", raw, fault)
			}
		}
	})
}
