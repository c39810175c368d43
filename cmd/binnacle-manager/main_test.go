package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestFillFlags: a flag beats the environment, which beats the file; a flag that
// may be repeated takes a list in the file.
func TestFillFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "manager.yaml")
	set := func(text string, env map[string]string, args ...string) (dir string, rules []string, err error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.StringVar(&dir, "data-dir", "default", "")
		f.StringArrayVar(&rules, "traces-sample", nil, "")
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		err = fillFlags(f, file, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		return dir, rules, err
	}
	list := "data-dir: /file\ntraces-sample:\n- \"errors: status=error keep=100%\"\n- \"rest: keep=5%\"\n"
	dir, rules, err := set(list, nil)
	if want := []string{"errors: status=error keep=100%", "rest: keep=5%"}; err != nil || dir != "/file" || !slices.Equal(rules, want) {
		t.Errorf("file: got %q, %q, %v; want /file and %q", dir, rules, err, want)
	}
	dir, rules, err = set(list, map[string]string{"BINNACLE_DATA_DIR": "/env", "BINNACLE_TRACES_SAMPLE": "a: keep=1%"})
	if err != nil || dir != "/env" || !slices.Equal(rules, []string{"a: keep=1%"}) {
		t.Errorf("environment: got %q, %q, %v", dir, rules, err)
	}
	dir, rules, err = set(list, map[string]string{"BINNACLE_DATA_DIR": "/env"}, "--data-dir", "/flag", "--traces-sample", "b: keep=1%", "--traces-sample", "c: keep=2%")
	if err != nil || dir != "/flag" || len(rules) != 2 {
		t.Errorf("flags: got %q, %q, %v", dir, rules, err)
	}
	for text, words := range map[string]string{
		"data-dir: [a, b]": "want one value",
		"no-such: 1":       "not a setting",
		"\t":               "--config",
	} {
		if _, _, err := set(text, nil); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: got %v; want an error with %q", text, err, words)
		}
	}
}
