package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle/cmd/internal/reference"
)

func TestReference(t *testing.T) { reference.Check(t, newRoot(), "") }

// TestCommandsOfRoutes: the command line does all that the API does. The lines
// of docs/reference/api.md, which a test of the manager keeps equal to its
// routes, each name the command that calls the route.
func TestCommandsOfRoutes(t *testing.T) {
	b, err := os.ReadFile("../../docs/reference/api.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\|.*\\| (.*) \\|$")
	rows := row.FindAllStringSubmatch(string(b), -1)
	if len(rows) < 40 {
		t.Fatalf("api.md has %d routes; want all of them", len(rows))
	}
	for _, r := range rows {
		command, ok := strings.CutPrefix(strings.Trim(r[2], "`"), "binnacle ")
		if !ok {
			if !strings.HasPrefix(r[2], "–") {
				t.Errorf("%s names no command and gives no reason", r[1])
			}
			continue
		}
		var words, flags []string
		for _, w := range strings.Fields(command) {
			if strings.HasPrefix(w, "--") {
				flags = append(flags, w[2:])
			} else if len(flags) == 0 {
				words = append(words, w)
			}
		}
		cmd, rest, err := newRoot().Find(words)
		if err != nil || !cmd.Runnable() {
			t.Errorf("%s: there is no command %q: %v", r[1], command, err)
			continue
		}
		if err := cmd.Args(cmd, rest); err != nil {
			t.Errorf("%s: binnacle %s: %v", r[1], command, err)
		}
		for _, f := range flags {
			if cmd.Flags().Lookup(f) == nil {
				t.Errorf("%s: %s has no flag --%s", r[1], cmd.CommandPath(), f)
			}
		}
	}
}
