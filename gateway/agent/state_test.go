package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func testState(t testing.TB, dir string) *stateDir {
	t.Helper()
	s, err := openState(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestOneAgentPerFolder(t *testing.T) {
	dir := t.TempDir()
	testState(t, dir)
	if _, err := openState(dir, testLog(t)); !errors.Is(err, ErrInUse) {
		t.Errorf("second open: got %v; want ErrInUse", err)
	}
}

// TestTruncatedAtEveryByte cuts a state file off at each byte, and turns each
// of its bytes: what is read is always a whole older version.
func TestTruncatedAtEveryByte(t *testing.T) {
	s := testState(t, t.TempDir())
	path := s.path(fileLedger)
	f := func(what string, damaged []byte, want string) {
		t.Helper()
		for _, p := range []string{path + ".prev", path} { // two versions
			if err := os.WriteFile(p, seal(fileLedger, []byte(want)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.load(fileLedger)
		if err != nil || string(got) != want {
			t.Fatalf("%s: got %q, %v; want %q", what, got, err, want)
		}
		aside, err := filepath.Glob(path + ".damaged-*")
		if err != nil || len(aside) != 1 {
			t.Fatalf("%s: %d files set aside, %v; want 1", what, len(aside), err)
		}
		if b, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(b, damaged) {
			t.Fatalf("%s: the damaged file was changed: %v", what, err)
		}
		os.Remove(aside[0])
	}
	whole := seal(fileLedger, []byte(`{"restart_done":"new"}`))
	const old = `{"restart_done":"old"}`
	for n := range len(whole) {
		f("truncated", whole[:n], old)
		turned := bytes.Clone(whole)
		turned[n] ^= 1
		f("turned", turned, old)
	}
	f("another file's name", seal(fileLease, []byte("x")), old)
}

// TestStoppedWhileSaving leaves every state that a stop in the middle of save
// can leave, and expects the old version or the new one.
func TestStoppedWhileSaving(t *testing.T) {
	older, newer := seal(filePlan, []byte("older")), seal(filePlan, []byte("newer"))
	type files map[string][]byte
	cases := []struct {
		name  string
		files files
		want  string
	}{
		{"nothing was ever saved", files{}, ""},
		{"the first save stopped in the new file", files{".new": newer[:9]}, ""},
		{"the first save stopped before its rename", files{".new": newer}, "newer"},
		{"stopped in the new file", files{"": older, ".new": newer[:9]}, "older"},
		{"stopped before the first rename", files{"": older, ".new": newer}, "older"},
		{"stopped between the renames", files{".prev": older, ".new": newer}, "newer"},
		{"stopped before the last sync", files{"": newer, ".prev": older}, "newer"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := testState(t, t.TempDir())
			for suffix, b := range c.files {
				if err := os.WriteFile(s.path(filePlan)+suffix, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := s.load(filePlan)
			if c.want == "" {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("load: got %q, %v; want that it does not exist", got, err)
				}
			} else if err != nil || string(got) != c.want {
				t.Fatalf("load: got %q, %v; want %q", got, err, c.want)
			}
			if err := s.save(filePlan, []byte("next")); err != nil {
				t.Fatal(err)
			}
			if got, err := s.load(filePlan); err != nil || string(got) != "next" {
				t.Fatalf("load after save: got %q, %v", got, err)
			}
		})
	}
}

func TestConfigsAreProvedByTheirHash(t *testing.T) {
	s := testState(t, t.TempDir())
	raw := []byte(`{"version":3}`)
	sha := hashOf(raw)
	if err := s.saveConfig(sha, raw); err != nil {
		t.Fatal(err)
	}
	if got, err := s.loadConfig(sha); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("load: got %q, %v", got, err)
	}
	path := filepath.Join(s.dir, dirConfigs, sha)
	for n := range len(raw) {
		if err := os.WriteFile(path, raw[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.loadConfig(sha); !errors.Is(err, errDamaged) {
			t.Errorf("cut off at %d: got %q, %v; want damaged", n, got, err)
		}
	}
	if err := s.saveConfig(sha, raw); err != nil {
		t.Fatal(err)
	}
	if _, err := s.loadConfig(sha); err != nil {
		t.Errorf("after saving over a damaged one: %v", err)
	}
	for _, bad := range []string{"", "..", "../" + fileKey, strings.Repeat("A", 64)} {
		if _, err := s.loadConfig(bad); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("loadConfig(%q): got %v; want that it does not exist", bad, err)
		}
	}
	s.keepConfigs(map[string]bool{})
	if _, err := s.loadConfig(sha); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after cleaning up: got %v", err)
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add([]byte(""))
	f.Add(seal("x", []byte("body")))
	f.Add([]byte("binnacle-state v1 x \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := unseal("x", b)
		if err != nil {
			return // refusing is fine
		}
		if !bytes.Equal(seal("x", body), b) {
			t.Fatalf("unseal(%q) gave %q, which seals to other bytes", b, body)
		}
	})
}
