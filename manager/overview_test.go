package manager

import (
	"testing"

	"github.com/binnacle-project/binnacle/api"
)

// TestFailingOnly: an overview names the nodes that a backend fails from, and
// still says how many call it.
func TestFailingOnly(t *testing.T) {
	row := []api.ActivityRow{
		{Node: "a", Activity: &api.Activity{Requests: 10}},
		{Node: "b", Activity: &api.Activity{Requests: 10, Errors: 2}},
		{Node: "c", Activity: &api.Activity{}},
		{Node: "d"},
	}
	b := api.Backend{ID: "x:1", Callers: callers(row), Nodes: row}
	got := failingOnly([]api.Backend{b})[0]
	if got.Callers != 2 {
		t.Errorf("callers: got %d; want 2", got.Callers)
	}
	if len(got.Nodes) != 1 || got.Nodes[0].Node != "b" {
		t.Errorf("nodes: got %v; want b alone", got.Nodes)
	}
	if len(row) != 4 || row[0].Node != "a" {
		t.Errorf("the shared row was changed: %v", row)
	}
}
