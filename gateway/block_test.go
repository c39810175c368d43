package gateway

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle/gateway/agent"
)

func TestParseBlock(t *testing.T) {
	cases := []struct {
		name  string
		block string
		// want is what Managers become; wantErr parts of the error.
		want    string
		wantErr []string
	}{
		{"least", `{"manager": "10.0.0.5:9899", "token_file": "t"}`, "[10.0.0.5:9899]", nil},
		{"list", `{"manager": ["a:1", "b"], "token_file": "t"}`, "[a:1 b:9899]", nil},
		{"IPv6", `{"manager": ["::1", "[::1]:7"], "token_file": "t"}`, "[[::1]:9899 [::1]:7]", nil},
		{"all keys", `{"manager": "a", "token_file": "t", "name": "n1", "group": "edge", "labels": {"zone": "b"},
			"advertise": "10.0.0.9", "state_dir": "s", "gossip": "off", "drain_delay": "8s", "allow": {"env": ["API_*"], "files": ["/run/secrets/"]}}`, "[a:9899]", nil},
		{"gossip on a free port", `{"manager": "a", "token_file": "t", "gossip": "127.0.0.1:0"}`, "[a:9899]", nil},
		{"empty", `{}`, "", []string{`"manager"`, "is missing", `"token_file"`}},
		{"URL", `{"manager": "https://a:1", "token_file": "t"}`, "", []string{"without https://"}},
		{"number", `{"manager": 7, "token_file": "t"}`, "", []string{"a string or a list"}},
		{"bad port", `{"manager": "a:99999", "token_file": "t"}`, "", []string{`"a:99999"`}},
		{"misspelt key", `{"manager": "a", "token_file": "t", "stat_dir": "s"}`, "", []string{"stat_dir"}},
		{"bad names", `{"manager": "a", "token_file": "t", "name": "Big Node", "group": "-"}`, "", []string{`"name"`, `"group"`}},
		{"bad gossip", `{"manager": "a", "token_file": "t", "gossip": "yes"}`, "", []string{`"gossip"`, `"off"`}},
		{"bad advertise", `{"manager": "a", "token_file": "t", "advertise": "http://x"}`, "", []string{`"advertise"`}},
		{"bad drain delay", `{"manager": "a", "token_file": "t", "drain_delay": "-3s"}`, "", []string{`"drain_delay"`, "10m"}},
		{"not an object", `"10.0.0.5"`, "", []string{"@cluster"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b, err := ParseBlock(fmt.Appendf(nil, `{"version": 3, "extra_config": {"@cluster": %s, "other": 1}}`, c.block))
			if c.wantErr == nil {
				if err != nil || fmt.Sprint([]string(b.Manager)) != c.want {
					t.Fatalf("got %+v, %v; want managers %s", b, err, c.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("got %+v; want an error", b)
			}
			for _, part := range c.wantErr {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestWithoutBlock(t *testing.T) {
	for _, raw := range []string{`{"version": 3}`, `{"extra_config": {}}`, `{"extra_config": {"cluster": {}}}`} {
		if b, err := ParseBlock([]byte(raw)); b != nil || err != nil {
			t.Errorf("ParseBlock(%s): got %+v, %v; want none", raw, b, err)
		}
	}
	_, err := ParseBlock([]byte("{\n  \"version\": 3,\n  oops\n}"))
	if err == nil || !strings.Contains(err.Error(), "line 3, column") {
		t.Errorf("a syntax error: got %v; want line and column", err)
	}
}

func TestBlockOptions(t *testing.T) {
	b, err := ParseBlock([]byte(`{"extra_config": {"@cluster": {"manager": "a", "token_file": "secrets/join.token", "name": "n1", "state_dir": "state"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	o := b.Options("/etc/krakend/krakend.json")
	if o.TokenFile != "/etc/krakend/secrets/join.token" || o.StateDir != "/etc/krakend/state" || o.Gossip != ":9898" || o.Name != "n1" {
		t.Errorf("options: got %+v", o)
	}
	b.StateDir = ""
	t.Setenv("STATE_DIRECTORY", "")
	if got := b.Options("/x").StateDir; got != "/var/lib/binnacle/n1" {
		t.Errorf("default state folder: got %s", got)
	}
	t.Setenv("STATE_DIRECTORY", "/var/lib/gw:/var/lib/gw2")
	if got := b.Options("/x").StateDir; got != "/var/lib/gw" {
		t.Errorf("state folder of the service: got %s", got)
	}
	b.Gossip = agent.GossipOff
	if got := b.Options(filepath.Join("x", "y")).Gossip; got != agent.GossipOff {
		t.Errorf("gossip: got %s", got)
	}
}

func FuzzParseBlock(f *testing.F) {
	f.Add([]byte(`{"extra_config": {"@cluster": {"manager": ["a:1"], "token_file": "t", "labels": {"a": "b"}}}}`))
	f.Add([]byte(`{"extra_config": {"@cluster": {"manager": "[::1", "token_file": "t", "gossip": ":"}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBlock(raw)
		if err != nil || b == nil {
			return
		}
		if o := b.Options("/f"); len(o.Managers) == 0 || o.TokenFile == "" || o.StateDir == "" {
			t.Fatalf("ParseBlock(%q) let %+v through", raw, b)
		}
	})
}
