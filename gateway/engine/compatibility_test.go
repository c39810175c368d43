package engine

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/compatibility.md's tables")

const compatibilityPage = "../../docs/compatibility.md"

// The page's tables are those of the code.
func TestCompatibilityPage(t *testing.T) {
	b, err := os.ReadFile(compatibilityPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for heading, enterprise := range map[string]bool{"## Community Edition\n": false, "## Enterprise Edition\n": true} {
		at := strings.Index(page, heading)
		if at < 0 {
			t.Fatalf("%s has no heading %q", compatibilityPage, heading)
		}
		begin := at + strings.Index(page[at:], "\n| namespace") + 1
		end := begin + strings.Index(page[begin:], "\n\n") + 1
		want := compatibilityTable(enterprise)
		if page[begin:end] == want {
			continue
		}
		if !*update {
			t.Errorf("%s, %s: the table is not the code's; run go test ./gateway/engine -run Page -update", compatibilityPage, strings.TrimSpace(heading))
			continue
		}
		page = page[:begin] + want + page[end:]
	}
	if *update && page != string(b) {
		if err := os.WriteFile(compatibilityPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNamespaceRows(t *testing.T) {
	seen := map[string]string{}
	for _, n := range namespaces {
		if n.levels == 0 {
			t.Errorf("%s: no level", n.name)
		}
		if n.support != supported && n.note == "" {
			t.Errorf("%s: no reason", n.name)
		}
		for _, name := range slices.Compact(n.names()) {
			if other, ok := seen[name]; ok {
				t.Errorf("%s names both %s and %s", name, other, n.name)
			}
			seen[name] = n.name
		}
	}
}

// placed returns a configuration with one block at one level.
func placed(name string, block any, l level) []byte {
	extra := map[string]any{name: block}
	backend := map[string]any{"host": []string{"http://127.0.0.1:9999"}, "url_pattern": "/"}
	endpoint := map[string]any{"endpoint": "/a", "backend": []any{backend}}
	service := map[string]any{"version": 3, "endpoints": []any{endpoint}}
	switch l {
	case atService:
		service["extra_config"] = extra
	case atEndpoint:
		endpoint["extra_config"] = extra
	case atBackend:
		backend["extra_config"] = extra
	}
	b, err := json.Marshal(service)
	if err != nil {
		panic(err)
	}
	return b
}

// What Check and Warnings say of every name at every level is what the table
// says.
func TestChecksFollowTheTable(t *testing.T) {
	for _, n := range namespaces {
		for _, name := range slices.Compact(n.names()) {
			for _, l := range []level{atService, atEndpoint, atBackend} {
				raw := placed(name, map[string]any{}, l)
				where := fmt.Sprintf("%s at %s", name, l)
				faults, warnings := Check(t.Context(), raw), Warnings(raw)
				about := func(f string) bool { return strings.Contains(f, fmt.Sprintf("%q", n.name)) }
				var refusals, ignores []string
				for _, f := range faults {
					if about(f.Message) && strings.Contains(f.Message, "not supported") {
						refusals = append(refusals, f.Message)
						if f.Line == 0 || !strings.Contains(f.Path, escapePointer(name)) {
							t.Errorf("%s: the fault does not say where: %+v", where, f)
						}
					}
				}
				for _, f := range warnings {
					if about(f.Message) {
						ignores = append(ignores, f.Message)
					}
				}
				wantIgnored := n.support == ignored || n.support == supported && n.levels&l == 0
				if (len(refusals) > 0) != (n.support == refused) {
					t.Errorf("%s is %s: refusals %q", where, n.support, refusals)
				}
				if (len(ignores) > 0) != wantIgnored {
					t.Errorf("%s is %s (%s): warnings %q", where, n.support, n.levels, ignores)
				}
			}
		}
	}
}

// Wrong types and unknown keys are said, not skipped.
func TestBlockShapes(t *testing.T) {
	for name, c := range map[string]struct {
		level level
		block string
		fault string // part of it; empty for none
		warns string // part of the path; empty for none
	}{
		"qos/ratelimit/router":    {atEndpoint, `{"client_max_rate": "5", "strategy": "ip"}`, "client_max_rate: found a JSON string, want a number", ""},
		"qos/ratelimit/proxy":     {atBackend, `{"max_rate": 1, "capacity": 1.5}`, "capacity: found a JSON number 1.5, want a whole number", ""},
		"qos/circuit-breaker":     {atBackend, `{"Max_errors": 1, "interval": 1}`, "", "/Max_errors"},
		"qos/http-cache":          {atBackend, `[]`, "want an object", ""},
		"security/http":           {atService, `{"allowed_hosts": "a.example"}`, "allowed_hosts: found a JSON string, want an array", ""},
		"security/cors":           {atService, `{"max_age": 12}`, "max_age: found a JSON number, want a string", ""},
		"security/bot-detector":   {atEndpoint, `{"patterns": ["("]}`, "error parsing regexp", ""},
		"auth/client-credentials": {atBackend, `{"token_url": "nowhere"}`, "want the address of the token endpoint", ""},
		"auth/validator":          {atEndpoint, `{"alg": "HS1", "jwk_url": "https://a.example"}`, "unknown algorithm HS1", ""},
		"auth/signer":             {atEndpoint, `{"alg": "HS256", "jwk_url": "http://a.example"}`, "jwk_url is not https", ""},
		"auth/revoker":            {atService, `{"N": 10, "P": 0.1, "ttl": 0, "hash_name": "optimal"}`, "ttl, the life of a token in seconds, is missing", ""},
		"modifier/lua-endpoint":   {atService, `{"pre": "local x = = 1"}`, "the script does not parse", ""},
		"modifier/lua-proxy":      {atEndpoint, `{"pre": 1}`, "pre: found a JSON number, want a string", ""},
		"modifier/lua-backend":    {atBackend, `{"pots": "x()"}`, "", "/pots"},
		"telemetry/logging":       {atService, `{"level": "LOUD"}`, `level "LOUD" is not known`, ""},
		"telemetry/gelf":          {atService, `{"enable_tcp": true}`, "address is missing", ""},
		"validation/json-schema":  {atEndpoint, `{"type": "objekt"}`, "Parsing the definition", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var block any
			if err := json.Unmarshal([]byte(c.block), &block); err != nil {
				t.Fatal(err)
			}
			raw := placed(name, block, c.level)
			var texts []string
			for _, f := range Check(t.Context(), raw) {
				texts = append(texts, f.Message)
				if f.Line == 0 {
					t.Errorf("a fault without a line: %+v", f)
				}
			}
			if got := strings.Join(texts, "; "); c.fault == "" && got != "" || !strings.Contains(got, c.fault) {
				t.Errorf("Check(%s): got %q; want %q", raw, got, c.fault)
			}
			var paths []string
			for _, f := range Warnings(raw) {
				paths = append(paths, f.Path)
			}
			if got := strings.Join(paths, " "); c.warns == "" && got != "" || !strings.HasSuffix(got, c.warns) {
				t.Errorf("Warnings(%s): at %q; want %q", raw, got, c.warns)
			}
		})
	}
}
