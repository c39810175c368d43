package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// TestFrame: a large fleet fits the terminal, and what is broken stands first.
func TestFrame(t *testing.T) {
	ratio := 0.5
	o := api.Overview{Time: time.Now(), Cluster: api.Cluster{ID: "c-1", Nodes: map[api.NodeState]int{api.Alive: 299, api.Down: 1}}}
	for i := range 300 {
		n := api.Node{Name: fmt.Sprintf("edge-%03d.of.a.name.that.goes.on", i), State: api.Alive, Managed: true, Activity: &api.Activity{RequestsPerSecond: float64(i)}}
		switch i {
		case 7:
			n.State = api.Down
		case 8:
			n.Activity.ErrorRatio = &ratio
		}
		o.Nodes = append(o.Nodes, n)
	}
	for i := range 40 {
		o.Backends = append(o.Backends, api.Backend{ID: binnacle.BackendID(fmt.Sprintf("backend-%d:80", i)), Activity: &api.Activity{}})
	}
	for _, size := range [][2]int{{80, 24}, {200, 60}, {40, 10}} {
		text := frame(o, []float64{1, 5, 3}, "", size[0], size[1])
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) >= size[1] {
			t.Errorf("%dx%d: %d lines; want fewer, so that the terminal does not scroll", size[0], size[1], len(lines))
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > size[0] {
				t.Errorf("%dx%d: a line of %d columns: %q", size[0], size[1], n, l)
			}
		}
	}
	text := frame(o, nil, "", 200, 40)
	down, failing, busy := strings.Index(text, "edge-007"), strings.Index(text, "edge-008"), strings.Index(text, "edge-299")
	if down < 0 || failing < down || busy < failing {
		t.Errorf("order: down at %d, failing at %d, busiest at %d; want them in this order\n%s", down, failing, busy, text)
	}
	if !strings.Contains(text, "more nodes") {
		t.Error("nothing says that nodes were left out")
	}
}

// TestContexts: a flag beats the environment, which beats the context in use;
// and a context's token goes to its own manager only.
func TestContexts(t *testing.T) {
	t.Setenv("BINNACLE_CONTEXTS", filepath.Join(t.TempDir(), "a", "contexts.yaml"))
	for _, name := range []string{"BINNACLE_MANAGER", "BINNACLE_TOKEN_FILE", "BINNACLE_CA_FILE", "BINNACLE_CONTEXT"} {
		t.Setenv(name, "")
	}
	token := filepath.Join("testdata", "token")
	c := contexts{Current: "one", Contexts: map[string]target{
		"one": {Manager: "http://one:9897", TokenFile: token}, "two": {Manager: "http://two:9897"},
	}}
	if err := c.write(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, conn connection, want target) {
		t.Helper()
		got, err := conn.target()
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", what, got, err, want)
		}
	}
	check("the context in use", connection{}, target{Manager: "http://one:9897", TokenFile: token})
	check("--context", connection{context: "two"}, target{Manager: "http://two:9897"})
	check("--manager", connection{manager: "http://three:9897"}, target{Manager: "http://three:9897"})
	t.Setenv("BINNACLE_MANAGER", "http://four:9897")
	check("BINNACLE_MANAGER", connection{}, target{Manager: "http://four:9897"})
	t.Setenv("BINNACLE_CONTEXT", "nobody")
	if _, err := (&connection{}).target(); err == nil || !strings.Contains(err.Error(), "context list") {
		t.Errorf("a context that is not there: %v; want what to do", err)
	}
}

// TestExitCodes: scripts tell by the code what happened.
func TestExitCodes(t *testing.T) {
	t.Setenv("BINNACLE_CONTEXTS", filepath.Join(t.TempDir(), "contexts.yaml"))
	for _, c := range []struct {
		args string
		want int
		says string
	}{
		{"status --manager http://127.0.0.1:1", exitAway, "is it running"},
		{"nodes show", exitUsage, "want: binnacle nodes show NODE"},
		{"nope", exitUsage, "unknown command"},
		{"status --nope", exitUsage, "unknown flag"},
		{"status -o xml", exitUsage, "table, json or yaml"},
		{"status --watch=1ms --manager http://127.0.0.1:1", exitUsage, "at least"},
		{"activity moon", exitUsage, "want one of"},
		{"config push missing.json", exitUsage, "no such file"},
		{"grafana provision", exitUsage, "--url is missing"},
		{"context use nobody", exitUsage, "no context"},
		{"version", exitUsage, "unknown command"},
		{"--version", 0, ""},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), strings.Fields(c.args), &stdout, &stderr); got != c.want || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("binnacle %s: code %d, %q; want %d and %q", c.args, got, stderr.String(), c.want, c.says)
		}
	}
}

// TestEncode: YAML has the API's names in the API's order, quotes only what
// needs them, and reads back as the same.
func TestEncode(t *testing.T) {
	conn := connection{output: "yaml"}
	var b bytes.Buffer
	e := api.Event{ID: 7, Kind: "node.joined", Actor: "true", Message: "one\ntwo"}
	if _, err := conn.encode(&b, e); err != nil {
		t.Fatal(err)
	}
	want := "id: 7\ntime: \"0001-01-01T00:00:00Z\"\nkind: node.joined\nactor: \"true\"\nmessage: |-\n  one\n  two\n"
	if b.String() != want {
		t.Errorf("got %q; want %q", b.String(), want)
	}
}

func TestColorize(t *testing.T) {
	got := colorize("NAME  STATE\ngw-1  alive\nTIME  down the river\n")
	if !strings.Contains(got, green+"alive"+reset) || strings.Contains(got, red+"down") || !strings.HasPrefix(got, bold+"NAME  STATE"+reset) {
		t.Errorf("got %q", got)
	}
}
