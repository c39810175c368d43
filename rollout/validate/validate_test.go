package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle/api"
)

func show(faults []api.Fault) string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "%d:%d %s %s\n", f.Line, f.Column, f.Path, f.Message)
	}
	return b.String()
}

func TestCheckSyntax(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string // want is a prefix per line; empty: no fault
	}{
		{"good", `{"a": [1, {"b": null}], "c": "\u00e4"}`, ""},
		{"empty", ``, "1:1  the file ends in the middle"},
		{"no object", "\n [1]", "1:1  a configuration is a JSON object"},
		{"missing comma", "{\n  \"a\": 1\n  \"b\": 2\n}", "3:3  invalid character '\"' after object key:value pair"},
		{"trailing comma", "{\n \"a\": 1,\n}", "3:1  invalid character '}'"},
		{"column in characters", `{"ä": tru}`, "1:10  invalid character '}'"},
		{"cut", "{\"a\": [1,\n 2", "2:3  the file ends in the middle"},
		{"trailing bytes", "{}\n{}", "2:1  invalid character '{' after top-level value: one file holds one"},
		{"template", `{"a": {{ .b }} }`, "1:8  invalid character '{' looking for beginning of object key string: templates"},
		{"comment", "{\n// x\n}", "2:1  invalid character '/'"},
		{"byte order mark", "\xef\xbb\xbf{}", "1:1  the file begins with a byte order mark"},
		{"not UTF-8", "{\"a\":\n \"\xff\"}", "2:3  the bytes here are not UTF-8"},
		{"equal keys", "{\"a\": 1,\n \"b\": {\"x/y\": 1, \"x/y\": 2},\n \"a\": 3}", "2:18 /b/x~1y the key \"x/y\" stands twice\n3:2 /a the key \"a\" stands twice"},
		{"equal keys by escape", `{"a": 1, "\u0061": 2}`, `1:10 /a the key "a" stands twice`},
		{"deep", strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300), "1:1006 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Split(show(checkSyntax([]byte(tc.in))), "\n")
			want := strings.Split(tc.want+"\n", "\n")
			if tc.want == "" {
				want = want[1:]
			}
			if len(got) != len(want) {
				t.Fatalf("checkSyntax: got %q; want %q", got, want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("fault %d: got %q; want %q", i, got[i], want[i])
				}
			}
		})
	}
}

const goodConfig = `{
  "version": 3,
  "endpoints": [
    {
      "endpoint": "/users/{id}",
      "backend": [{ "host": ["http://users:8080"], "url_pattern": "/u/{id}" }]
    }
  ]
}`

func TestCheckShape(t *testing.T) {
	faults, warnings := checkShape([]byte(goodConfig))
	if len(faults)+len(warnings) > 0 {
		t.Errorf("a good configuration: %v, %v", faults, warnings)
	}
	faults, _ = checkShape([]byte("{\n \"version\": 2,\n \"endpoints\": [\n  null,\n  {\"endpoint\": \"/a\", \"backend\": [null]},\n  {\"endpoint\": \"a\", \"method\": \"get\"}\n ]\n}"))
	want := `2:13 /version version 2 is not supported: want 3
4:3 /endpoints/0 an endpoint is an object, not null
5:34 /endpoints/1/backend/0 a backend is an object, not null
6:3 /endpoints/2 the endpoint GET /a stands twice: it is /endpoints/1 already
`
	if got := show(faults); got != want {
		t.Errorf("faults: got\n%swant\n%s", got, want)
	}
	if faults, _ = checkShape([]byte("{}")); len(faults) != 1 || !strings.Contains(faults[0].Message, `"version" is missing`) {
		t.Errorf("no version: got %v", faults)
	}
	_, warnings = checkShape([]byte(`{"version": 3, "Port": 80, "listen_ip": "::1", "tls": {}, "plugin": {}, "extra_config": {"@cluster": {}}}`))
	var paths []string
	for _, w := range warnings {
		paths = append(paths, w.Path)
	}
	if got, want := strings.Join(paths, " "), "/Port /listen_ip /tls /plugin /extra_config/@cluster"; got != want {
		t.Errorf("warnings: got %s; want %s", got, want)
	}
}

func TestFillReferences(t *testing.T) {
	f := func(in, want string, count int, faults string) {
		t.Helper()
		got, n, bad := fillReferences([]byte(in))
		if string(got) != want || n != count || show(bad) != faults {
			t.Errorf("fillReferences(%s): got %s, %d, %q; want %s, %d, %q", in, got, n, show(bad), want, count, faults)
		}
	}
	f(`"x"`, `"x"`, 0, "")
	f(`"http://${env:HOST}:${env:PORT}/"`, `"http://placeholder:8080/"`, 2, "")
	f(`"${file:/run/secret}"`, `"placeholder"`, 1, "")
	f(`"$${env:HOST} ${other:x} $"`, `"${env:HOST} ${other:x} $"`, 0, "")
	f("\n \"${env:} ${file:x}\"", "\n \"placeholder placeholder\"", 2, "2:3  ${env:} names no environment variable\n2:11  ${file:x} is no absolute path\n")
}

func TestCheckInit(t *testing.T) {
	if faults := checkInit([]byte(goodConfig)); len(faults) > 0 {
		t.Errorf("a good configuration: %v", faults)
	}
	faults := checkInit([]byte(`{
 "version": 3,
 "endpoints": [
  {"endpoint": "/ok", "backend": [{"host": ["a"], "url_pattern": "/"}]},
  {"endpoint": "/empty"},
  {"endpoint": "/p/{a}", "backend": [{"host": ["a"], "url_pattern": "/{b}"}]},
  {"endpoint": "/host", "backend": [{"host": ["http://a b"], "url_pattern": "/"}]}
 ]
}`))
	got := show(faults)
	for _, want := range []string{"5:3 /endpoints/1 ", "0 backends", "6:3 /endpoints/2 undefined output param 'b'", "7:3 /endpoints/3 host http://a b not valid"} {
		if !strings.Contains(got, want) {
			t.Errorf("faults lack %q:\n%s", want, got)
		}
	}
	if len(faults) != 3 {
		t.Errorf("got %d faults; want 3:\n%s", len(faults), got)
	}
	faults = checkInit([]byte("{\"version\": 3,\n\"endpoints\": [{\"endpoint\": 7}]}"))
	if len(faults) != 1 || faults[0].Line != 2 || !strings.Contains(faults[0].Message, "number") {
		t.Errorf("a wrong type: got %s", show(faults))
	}
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(`{"version":3,"endpoints":[null,{"backend":[null]}],"extra_config":{"@cluster":1},"port":"${env:P}"}`))
	f.Add([]byte(`{"version":3,"async_agent":[{"backend":[{}]}],"host":["${file:/x}"]}`))
	f.Add([]byte(`{"a":{"a":1,"a":2}}{`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		check := func(faults []api.Fault) bool {
			for _, x := range faults {
				if x.Message == "" || x.Stage == "" || x.Line > bytes.Count(raw, []byte("\n"))+1 || (x.Line == 0) != (x.Column == 0) {
					t.Fatalf("fault %+v of %q", x, raw)
				}
			}
			return len(faults) == 0
		}
		if !check(checkSyntax(raw)) {
			return
		}
		if !json.Valid(raw) {
			t.Fatalf("%q is no JSON and has no fault", raw)
		}
		faults, warnings := checkShape(raw)
		check(warnings)
		filled, _, bad := fillReferences(raw)
		if !check(faults) || !check(bad) {
			return
		}
		if !json.Valid(filled) {
			t.Fatalf("filling references broke %q: %q", raw, filled)
		}
		check(checkInit(filled))
		withoutNodeKeys(filled)
	})
}

// TestCheckSchema says what is wrong, all of it, with line and column.
func TestCheckSchema(t *testing.T) {
	raw := []byte(`{
  "version": 3,
  "timeout": "3",
  "endpoints": [
    {"endpoint": "/a", "backend": [{"host": "http://a"}],
     "extra_config": {"qos/ratelimit/router": {"max_rate": "many"}}},
    {"endpoint": "/b"}
  ]
}`)
	got := show(checkSchema(raw, raw))
	for _, want := range []string{
		"3:14 /timeout '3' does not match pattern", "5:45 /endpoints/0/backend/0/host got string, want", "6:60 /endpoints/0/extra_config/qos~1ratelimit~1router/max_rate got string, want",
		"7:5 /endpoints/1 missing property 'backend'",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got:\n%s\nwant %q in it", got, want)
		}
	}
	if got := checkSchema([]byte(goodConfig), []byte(goodConfig)); len(got) > 0 {
		t.Errorf("a good configuration: %s", show(got))
	}
}
