package rollout_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// TestOpaqueGroup pushes what is no JSON: the group's first revision settles
// its format.
func TestOpaqueGroup(t *testing.T) {
	store := statetest.Memory(t)
	b := open(t, store, nil)
	push := func(g binnacle.Group, format, config string) (api.CreatedRevision, int) {
		t.Helper()
		rev, err := b.CreateRevision(t.Context(), g, api.NewRevision{Config: []byte(config), Format: format})
		var p *api.Problem
		if err != nil && !errors.As(err, &p) {
			t.Fatalf("%s %q: %v", g, config, err)
		}
		if p != nil {
			return rev, p.Status
		}
		return rev, http.StatusOK
	}
	const nginx = "events {}\nhttp { server { listen 8080; } }\n"
	f := func(name string, g binnacle.Group, format, config string, want int) api.CreatedRevision {
		t.Helper()
		rev, got := push(g, format, config)
		if got != want {
			t.Errorf("%s: got %d; want %d", name, got, want)
		}
		return rev
	}
	f("no JSON without a format", "web", "", nginx, http.StatusUnprocessableEntity)
	f("an unknown format", "web", "xml", nginx, http.StatusUnprocessableEntity)
	f("nothing", "web", "opaque", " \n", http.StatusUnprocessableEntity)
	rev := f("the first", "web", "opaque", nginx, http.StatusOK)
	if rev.Number != 1 || len(rev.Warnings) != 1 || !strings.Contains(rev.Warnings[0].Message, "nodes' own check") {
		t.Errorf("the first: got %+v; want revision 1 and that only nodes check it", rev)
	}
	f("the next needs no format", "web", "", nginx+"# more", http.StatusOK)
	f("the other format", "web", "krakend", string(config(1)), http.StatusConflict)
	f("a group of the other format", "api", "", string(config(1)), http.StatusOK)
	f("opaque there", "api", "opaque", nginx, http.StatusConflict)

	again := open(t, store, nil)
	groups, err := again.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	formats := map[binnacle.Group]string{}
	for _, g := range groups {
		formats[g.Name] = g.Format
	}
	if formats["web"] != "opaque" || formats["api"] != "krakend" {
		t.Errorf("formats after a restart: got %v", formats)
	}
}
