package configfile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlexible(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"settings", "partials", "templates"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "settings/service.json", `{"port": 8090, "hosts": {"users": "http://users.example"}, "names": ["a", "b"]}`)
	write(t, dir, "settings/notes.txt", `not read`)
	write(t, dir, "partials/limit.json", `"qos/ratelimit/router": {"max_rate": {{ not rendered }}5}`)
	write(t, dir, "partials/plain.json", `"qos/ratelimit/router": {"max_rate": 5}`)
	write(t, dir, "templates/backend.tmpl", `{"host": ["{{ . }}"], "url_pattern": "/x"}`)
	write(t, dir, "templates/other.txt", `{{ broken`)
	file := write(t, dir, "krakend.tmpl", `{
  "version": 3, "port": {{ .service.port }}, "name": {{ env "SERVICE" | default "none" | quote }},
  "endpoints": [{{ range $i, $n := .service.names }}{{ if $i }},{{ end }}
    {"endpoint": "/{{ $n }}", "extra_config": { {{ include "plain.json" }} },
     "backend": [{{ template "backend.tmpl" $.service.hosts.users }}]}{{ end }}],
  "extra_config": {"@settings": {{ marshal .service.hosts }}}
}`)
	out := filepath.Join(dir, "out.json")
	environ := []string{"FC_ENABLE=1", "FC_SETTINGS=" + dir + "/settings", "FC_PARTIALS=" + dir + "/partials",
		"FC_TEMPLATES=" + dir + "/templates", "FC_OUT=" + out, "SERVICE=api"}
	raw, err := Load(file, environ)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Port      int
		Name      string
		Endpoints []struct {
			Endpoint string
			Extra    map[string]map[string]float64 `json:"extra_config"`
			Backend  []struct{ Host []string }
		}
		Extra map[string]map[string]string `json:"extra_config"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v in\n%s", err, raw)
	}
	if got.Port != 8090 || got.Name != "api" || len(got.Endpoints) != 2 || got.Endpoints[1].Endpoint != "/b" ||
		got.Endpoints[0].Extra["qos/ratelimit/router"]["max_rate"] != 5 || got.Endpoints[0].Backend[0].Host[0] != "http://users.example" ||
		got.Extra["@settings"]["users"] != "http://users.example" {
		t.Errorf("rendered\n%s", raw)
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != string(raw) {
		t.Errorf("FC_OUT holds %q, %v; want what was rendered", b, err)
	}

	// Without FC_ENABLE the same file is taken as it is.
	if raw, err := Load(file, environ[1:]); err != nil || !strings.Contains(string(raw), "{{") {
		t.Errorf("without FC_ENABLE: got %q, %v; want the file", raw, err)
	}
}

func TestFlexibleErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "broken.json", "{")
	for name, c := range map[string]struct {
		f    Flexible
		text string
		want string
	}{
		"missing settings":    {Flexible{Settings: dir + "/none"}, "{}", "settings"},
		"broken settings":     {Flexible{Settings: dir}, "{}", "broken.json"},
		"missing partial":     {Flexible{Partials: dir}, `{{ include "none" }}`, "none"},
		"partial outside":     {Flexible{Partials: dir}, `{{ include "../x" }}`, "escapes"},
		"no partials":         {Flexible{}, `{{ include "x" }}`, "FC_PARTIALS"},
		"unknown function":    {Flexible{}, `{{ nosuch 1 }}`, `"nosuch"`},
		"fails":               {Flexible{}, `{{ fail "say why" }}`, "say why"},
		"division by zero":    {Flexible{}, `{{ div 1 0 }}`, "division by zero"},
		"renders without end": {Flexible{}, `{{ range until 99999 }}{{ repeat 9999 "x" }}{{ end }}`, "exceeds"},
		"repeats too often":   {Flexible{}, `{{ repeat 99999999 "x" }}`, "too often"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.f.Render(write(t, t.TempDir(), "f", c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Render(%s): error %v; want one with %q", c.text, err, c.want)
			}
		})
	}
}

func TestFunctions(t *testing.T) {
	f := Flexible{Env: func(name string) string { return map[string]string{"A": "1"}[name] }}
	for in, want := range map[string]string{
		`{{ env "A" }}{{ env "B" | default "none" }}`:                                                                 "1none",
		`{{ coalesce "" 0 "x" }}{{ empty "" }}{{ ternary "y" "n" false }}`:                                            "xtruen",
		`{{ list 1 "a" true | toJson }}`:                                                                              `[1,"a",true]`,
		`{{ dict "a" 1 "b" (list 2) | marshal }}`:                                                                     `{"a":1,"b":[2]}`,
		`{{ (fromJson "{\"a\":{\"b\":7}}").a.b }}`:                                                                    "7",
		`{{ "a-b" | upper | replace "-" "_" | quote }}`:                                                               `"A_B"`,
		`{{ squote "a" "b" }}`:                                                                                        "'a' 'b'",
		`{{ trimPrefix "/" "/a" }}{{ trimSuffix "/" "b/" }}{{ trimAll "." ".c." }}`:                                   "abc",
		`{{ trunc 2 "abc" }}{{ trunc -2 "abc" }}{{ trunc 9 "x" }}`:                                                    "abbcx",
		`{{ splitList "," "a,b" | join ";" }}{{ list 3 1 | sortAlpha }}`:                                              "a;b[1 3]",
		`{{ first (list 1 2) }}{{ last (list 1 2) }}{{ first (list) }}`:                                               "12<no value>",
		`{{ append (list 1) 2 }}{{ prepend (list 1) 0 }}{{ concat (list 1) (list 2) }}`:                               "[1 2][0 1][1 2]",
		`{{ has 2 (list 1 2) }}{{ uniq (list 1 1 2) }}`:                                                               "true[1 2]",
		`{{ until 3 }}{{ untilStep 5 0 -2 }}`:                                                                         "[0 1 2][5 3 1]",
		`{{ $d := dict "a" 1 }}{{ $_ := set $d "b" 2 }}{{ keys $d }}{{ hasKey $d "c" }}{{ get $d "b" }}`:              "[a b]false2",
		`{{ merge (dict "a" (dict "x" 1)) (dict "a" (dict "x" 2 "y" 3) "b" 4) | marshal }}`:                           `{"a":{"x":1,"y":3},"b":4}`,
		`{{ add 1 2 3 }}{{ sub 5 "2" }}{{ mul 2 3 }}{{ div 7 2 }}{{ mod 7 2 }}{{ add1 1 }}{{ max 1 3 }}{{ min 1 3 }}`: "636312" + "31",
		`{{ int 3.7 }}{{ int "0x10" }}{{ atoi "12" }}{{ toString 5 }}`:                                                "316125",
		`{{ b64enc "a" }}{{ b64dec "YQ==" }}{{ sha256sum "" | trunc 6 }}`:                                             "YQ==ae3b0c4",
		`{{ indent 2 "a\nb" }}{{ nindent 1 "c" }}`:                                                                    "  a\n  b\n c",
		`{{ contains "b" "abc" }}{{ hasPrefix "a" "abc" }}{{ hasSuffix "x" "abc" }}`:                                  "truetruefalse",
		`{{ regexMatch "^a+$" "aa" }}{{ regexReplaceAll "a" "aba" "c" }}`:                                             "truecbc",
		`{{ kindOf 1 }}{{ kindIs "map" (dict) }}`:                                                                     "inttrue",
	} {
		raw, err := f.Render(write(t, t.TempDir(), "f", in))
		if err != nil || string(raw) != want {
			t.Errorf("%s: got %q, %v; want %q", in, raw, err, want)
		}
	}
}
