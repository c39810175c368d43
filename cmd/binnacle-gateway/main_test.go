package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.json", `{"version": 3, "port": 1, "endpoints": []}`)
	bad := file("bad.json", "{\n \"version\": 3,\n oops }")
	block := file("block.json", `{"version": 3, "extra_config": {"@cluster": {"manager": "m"}}}`)
	f := func(want int, out, errOut string, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		got := run(t.Context(), args, &stdout, &stderr)
		if got != want || !strings.Contains(stdout.String(), out) || !strings.Contains(stderr.String(), errOut) {
			t.Errorf("%v: exit %d, stdout %q, stderr %q; want exit %d, %q, %q", args, got, &stdout, &stderr, want, out, errOut)
		}
		return stdout.String()
	}
	f(0, binnacle.Version, "", "version")
	f(0, "no faults", "", "check", "-c", good)
	if out := f(0, "[]", "", "check", "-c", good, "--format", "json"); out != "[]\n" {
		t.Errorf("check of a good file as JSON: got %q; want []", out)
	}
	f(1, "line 3", "", "check", "-c", bad)
	var faults []api.Fault
	if out := f(1, "", "", "check", "-c", bad, "--format", "json"); json.Unmarshal([]byte(out), &faults) != nil || len(faults) == 0 || faults[0].Line != 3 {
		t.Errorf("check of a bad file as JSON: got %q; want faults with positions", out)
	}
	f(1, "/extra_config/@cluster", "", "check", "-c", block)
	f(2, "", "no such file", "check", "-c", good+".none")
	f(2, "", "--format", "check", "-c", good, "--format", "xml")
	f(2, "", "unknown flag", "run", "--nope")
	f(2, "", "unexpected argument", "run", "x")
	f(2, "", "unknown command", "nope")
	f(2, "", "after --", "supervise")
	f(2, "", "--stop-signal", "supervise", "--stop-signal", "BYE", "--", "nginx")
	f(1, "", "--config-file", "supervise", "--", "nginx")
	f(1, "", "token_file", "supervise", "--manager", "m", "--config-file", good, "--", "nginx")
	f(1, "", "--advertise", "supervise", "--manager", "m", "--token-file", "t", "--config-file", good, "--", "nginx")
	f(1, "", "no @cluster block", "status", "-c", good)
	f(1, "", "no agent runs", "status", "--state-dir", dir)
	f(1, "", "token_file", "run", "-c", block)
}
