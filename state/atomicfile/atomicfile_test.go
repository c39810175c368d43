package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// contents returns what is below dir, by path.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	// What a crash left, and a trap that must not be followed.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, []byte("mine"), 0o644), os.Symlink(outside, path+".new")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "", "three"} {
		if err := Write(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, dir); len(got) != 1 || got["f"] != want {
			t.Errorf("after Write(%q) the folder has %q", want, got)
		}
	}
	if m := mode(t, path); m != 0o640 {
		t.Errorf("mode is %o; want 640", m)
	}
	if b, err := os.ReadFile(outside); string(b) != "mine" || err != nil {
		t.Errorf("a link at f.new was followed: %q, %v", b, err)
	}
}

// A reader sees one of the versions whole, however often they are replaced.
func TestWriteIsAtomicForReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	versions := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	if err := Write(path, versions[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for i := range 50 {
			if err := Write(path, versions[i%2], 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	reads := 0
	for running := true; running; reads++ {
		select {
		case <-done:
			running = false
		default:
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, versions[0]) && !bytes.Equal(b, versions[1]) {
			t.Fatalf("read %d bytes, %v: no version", len(b), err)
		}
	}
	wg.Wait()
	t.Logf("%d reads during 50 writes", reads)
}

func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	if err := errors.Join(os.Mkdir(full, 0o700), os.WriteFile(filepath.Join(full, "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Write(full, []byte("b"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if err := WriteFolder(full, map[string][]byte{"y": nil}); err == nil {
		t.Error("a folder that is not empty was replaced")
	}
	if err := Write(filepath.Join(dir, "missing", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a missing folder: %v; want fs.ErrNotExist", err)
	}
	if got := contents(t, dir); len(got) != 1 {
		t.Errorf("failed writes left something: %q", got)
	}
}

func TestWriteNewNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := WriteNew(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second time: %v; want fs.ErrExist", err)
	}
	if b, err := os.ReadFile(path); string(b) != "first" || err != nil || mode(t, path) != 0o600 {
		t.Errorf("the file has %q, mode %o, %v", b, mode(t, path), err)
	}
}

func TestWriteFolder(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(dir+".new", 0o755); err != nil { // a crash cut the write before
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir+".new", "stale"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFolder(dir, map[string][]byte{"key": []byte("k"), "cert": []byte("c")}); err != nil {
		t.Fatal(err)
	}
	got := contents(t, root)
	if len(got) != 2 || got["a/b/key"] != "k" || got["a/b/cert"] != "c" {
		t.Errorf("the folder has %q", got)
	}
	if mode(t, dir) != 0o700 || mode(t, filepath.Join(dir, "key")) != 0o600 {
		t.Errorf("modes %o and %o; want 700 and 600", mode(t, dir), mode(t, filepath.Join(dir, "key")))
	}
}
