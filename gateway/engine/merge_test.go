package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	cases := []struct {
		name, own, revision, want string
		overridden                []string
	}{
		{"nothing of the node's", `{}`, `{"version": 3}`, `{"version": 3}`, nil},
		{"own port wins", `{"port": 9000}`, `{"version": 3, "port": 8000}`, `{"version": 3, "port": 9000}`, []string{"port"}},
		{"same port", `{"port": 9000}`, `{"port": 9000.0}`, `{"port": 9000}`, nil},
		{"revision sets a port, the node none", `{}`, `{"port": 8000}`, `{}`, []string{"port"}},
		{"the default is no difference", `{}`, `{"port": 8080, "listen_ip": ""}`, `{}`, nil},
		{"own only", `{"listen_ip": "127.0.0.1"}`, `{}`, `{"listen_ip": "127.0.0.1"}`, nil},
		{"other case", `{"port": 9000}`, `{"Port": 1, "PORT": 2, "port": 3}`, `{"port": 9000}`, []string{"port"}},
		{"tls and plugin", `{"tls": {"public_key": "a"}}`, `{"tls": {"public_key": "b"}, "plugin": {"folder": "/x"}}`, `{"tls": {"public_key": "a"}}`, []string{"plugin", "tls"}},
		{"cluster block goes in", `{"extra_config": {"@cluster": {"manager": "m"}, "router": {}}}`, `{"extra_config": {"proxy": {}}}`,
			`{"extra_config": {"@cluster": {"manager": "m"}, "proxy": {}}}`, nil},
		{"cluster block without extra_config", `{"extra_config": {"@cluster": 1}}`, `{}`, `{"extra_config": {"@cluster": 1}}`, nil},
		{"cluster block replaced", `{"extra_config": {"@cluster": 1}}`, `{"Extra_Config": {"@cluster": 2}}`, `{"extra_config": {"@cluster": 1}}`, []string{"extra_config.@cluster"}},
		{"cluster block removed", `{}`, `{"extra_config": {"@cluster": 2, "a": 1}}`, `{"extra_config": {"a": 1}}`, []string{"extra_config.@cluster"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, overridden, err := Merge([]byte(c.own), []byte(c.revision))
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, string(got), c.want)
			if !slices.Equal(overridden, c.overridden) {
				t.Errorf("overridden: %q; want %q", overridden, c.overridden)
			}
		})
	}
	rev := []byte(`{ "version" : 3 }`)
	if got, _, err := Merge(nil, rev); err != nil || string(got) != string(rev) {
		t.Errorf("Merge(nil, %s): %s, %v; want the same bytes", rev, got, err)
	}
	for _, bad := range [][2]string{{`{`, `{}`}, {`{}`, `[]`}, {`{"extra_config": 1}`, `{}`}, {`{}`, `{"extra_config": "x"}`}} {
		if _, _, err := Merge([]byte(bad[0]), []byte(bad[1])); err == nil {
			t.Errorf("Merge(%s, %s): no error", bad[0], bad[1])
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"port": 1, "extra_config": {"@cluster": {}}}`), []byte(`{"Port": 2, "extra_config": null}`))
	f.Fuzz(func(t *testing.T, own, revision []byte) {
		got, _, err := Merge(own, revision)
		if err != nil {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("Merge(%q, %q): %q is no JSON", own, revision, got)
		}
		again, overridden, err := Merge(own, got)
		if err != nil || len(overridden) != 0 {
			t.Fatalf("Merge(%q) of its own result %q: %q, %v, %v; want nothing overridden", own, got, again, overridden, err)
		}
	})
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	secret := write("in/secret", "p\"w\\\n")
	write("in/sub/deep", "deep")
	outside := write("outside", "x")
	if err := os.Symlink(outside, filepath.Join(dir, "in/link")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("API_HOST", "db.local")
	t.Setenv("OTHER", "x")
	t.Setenv("BAD", "\xff")
	allow := AllowList{Env: []string{"API_*", "BAD", "API_UNSET"}, Files: []string{dir + "/in/"}}

	ok := []struct{ in, want string }{
		{`{"a": 1}`, `{"a": 1}`},
		{`{"a": "http://${env:API_HOST}:80"}`, `{"a": "http://db.local:80"}`},
		{`{"a": "${file:` + secret + `}"}`, `{"a": "p\"w\\"}`},
		{`{"a": "${file:` + dir + `/in/sub/deep}${env:API_HOST}"}`, `{"a": "deepdb.local"}`},
		{`{"a": "$${env:API_HOST}"}`, `{"a": "${env:API_HOST}"}`},
		{`{"a": "${other:x} ${ $"}`, `{"a": "${other:x} ${ $"}`},
	}
	for _, c := range ok {
		got, err := Resolve([]byte(c.in), allow)
		if err != nil {
			t.Errorf("Resolve(%s): %v", c.in, err)
			continue
		}
		sameJSON(t, string(got), c.want)
	}
	bad := []struct{ in, want string }{
		{`{"a": "${env:OTHER}"}`, "allow-list"},
		{`{"a": "${env:API_UNSET}"}`, "not set"},
		{`{"a": "${env:BAD}"}`, "UTF-8"},
		{`{"a": "${env:A B}"}`, "not a name"},
		{`{"a": "${file:` + outside + `}"}`, "allow-list"},
		{`{"a": "${file:` + dir + `/in/../outside}"}`, "allow-list"},
		{`{"a": "${file:` + dir + `/in/link}"}`, "allow-list"},
		{`{"a": "${file:` + dir + `/in/sub}"}`, "regular file"},
		{`{"a": "${file:` + dir + `/in/none}"}`, "no such file"},
		{`{"a": "${file:in/secret}"}`, "absolute"},
		{"{\n\"a\": \"${env:OTHER}\"}", "line 2 column 7"},
		{`{"a": ${env:API_HOST}}`, "invalid character"},
	}
	for _, c := range bad {
		got, err := Resolve([]byte(c.in), allow)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Resolve(%s): %s, %v; want an error with %q", c.in, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "p\"w") {
			t.Errorf("Resolve(%s): the error tells a value: %v", c.in, err)
		}
	}
	if _, err := Resolve([]byte(`{"a": "${env:OTHER}", "b": "${env:API_UNSET}"}`), allow); err == nil || strings.Count(err.Error(), "column") != 2 {
		t.Errorf("two failures: %v; want both named", err)
	}
	if _, err := Resolve([]byte(`{"a": "${env:API_HOST}"}`), AllowList{}); err == nil {
		t.Error("the zero AllowList allowed a reference")
	}
}

func FuzzResolve(f *testing.F) {
	f.Add([]byte(`{"a": "${env:X} $${env:X} ${file:/x}"}`))
	f.Add([]byte(`{"${env:X}": "\"${env:X}"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := resolve(raw, func(string, string) (string, error) { return "\"\\\n\x00{", nil })
		if err == nil && json.Valid(raw) && !json.Valid(got) {
			t.Fatalf("resolve(%q): %q is no JSON", raw, got)
		}
	})
}

func TestSettings(t *testing.T) {
	raw := []byte(`{"version": 3, "port": 9090, "listen_ip": "127.0.0.1", "read_timeout": "3s", "max_shutdown_wait_time": "7s",
		"extra_config": {"router": {"use_h2c": true}, "telemetry/opentelemetry": {"service_name": "shop", "trace_sample_rate": 0.5, "skip_paths": ["/x"]}}}`)
	s, err := SettingsOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != "127.0.0.1:9090" || s.ReadTimeout.Seconds() != 3 || s.MaxShutdownWait.Seconds() != 7 || !s.H2C || s.TLS != nil {
		t.Errorf("SettingsOf: %+v", s)
	}
	d, err := SettingsOf([]byte(`{"version": 3, "tls": {"public_key": "a", "private_key": "b"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if d.Addr() != ":8080" {
		t.Errorf("default address: %q; want :8080", d.Addr())
	}
	if got, want := s.Changed(d), []string{"listen_ip", "max_shutdown_wait_time", "port", "read_timeout", "tls", "use_h2c"}; !slices.Equal(got, want) {
		t.Errorf("Changed: %q; want %q", got, want)
	}
	if got := s.Changed(s); got != nil {
		t.Errorf("Changed with itself: %q", got)
	}
	ts, err := TelemetrySettingsOf(raw)
	if err != nil || ts.ServiceName != "shop" || ts.SampleRatio != 0.5 || !slices.Equal(ts.SkipPaths, []string{"/x"}) {
		t.Errorf("TelemetrySettingsOf: %+v, %v", ts, err)
	}
	if ts, err := TelemetrySettingsOf(conf()); err != nil || ts.SampleRatio >= 0 || len(ts.SkipPaths) == 0 {
		t.Errorf("TelemetrySettingsOf without a block: %+v, %v", ts, err)
	}
	if _, err := SettingsOf([]byte(`{`)); err == nil {
		t.Error("SettingsOf broken JSON: no error")
	}
}

func TestTemplate(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := template(in); got != want {
			t.Errorf("template(%q): got %q; want %q", in, got, want)
		}
	}
	f("/users/:id", "/users/{id}")
	f("/users/:id/orders/:order", "/users/{id}/orders/{order}")
	f("/files/*rest", "/files/*rest")
	f("/v1:x", "/v1{x}")
	f("/", "/")
	f("/a:", "/a:")
}
