package traces

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// damages are what disks, power failures and people do to files.
var damages = []struct {
	name string
	do   func([]byte) []byte // nil removes the file
}{
	{"missing", nil},
	{"emptied", func([]byte) []byte { return nil }},
	{"halved", func(b []byte) []byte { return b[:len(b)/2] }},
	{"flipped", func(b []byte) []byte {
		for i := len(b) / 3; i < len(b); i += 1 + len(b)/7 {
			b[i] ^= 0x10
		}
		return b
	}},
	{"zeroed", func(b []byte) []byte { clear(b[len(b)/2:]); return b }},
	{"garbage", func(b []byte) []byte {
		for i := range b {
			b[i] = byte(i*131 + 7)
		}
		return b
	}},
}

// TestDamagedFiles damages each file of a store, one at a time, and wants the
// store to open, to take spans and to answer, whatever is lost.
func TestDamagedFiles(t *testing.T) {
	now := base
	whole := t.TempDir()
	onDisk := func(dir string) func(*Options) {
		return func(o *Options) { o.Dir = dir; o.Log = nil }
	}
	s := openStore(t, vfs.Default, &now, onDisk(whole))
	for i := range 6 {
		write(t, s, make1(spec{service: "a", trace: byte(1 + i), id: 1}))
		flush(t, s)
		if i == 2 {
			if err := s.db.Flush(); err != nil { // to a table
				t.Fatal(err)
			}
			now = now.Add(time.Hour)
		}
	}
	write(t, s, make1(spec{service: "a", trace: 7, id: 1})) // waits to be merged
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := fs.WalkDir(os.DirFS(whole), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		for _, dm := range damages {
			t.Run(strings.ReplaceAll(file, "/", ":")+" "+dm.name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "traces")
				if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
					t.Fatal(err)
				}
				p := filepath.Join(dir, file)
				b, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
				if dm.do != nil {
					if err := os.WriteFile(p, dm.do(b), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				s := openStore(t, vfs.Default, &now, onDisk(dir))
				write(t, s, make1(spec{service: "a", trace: 99, id: 1}))
				if err := s.flush(); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Trace(t.Context(), traceID(99)); err != nil {
					t.Errorf("a trace that came after the damage: %v", err)
				}
				found, err := s.Search(t.Context(), Query{Service: "a", Start: base.Add(-time.Hour), End: base.Add(5 * time.Hour), Limit: 50})
				if err != nil && s.heal(t.Context()) > 0 {
					found, err = s.Search(t.Context(), Query{Service: "a", Start: base.Add(-time.Hour), End: base.Add(5 * time.Hour), Limit: 50})
				}
				if err != nil || len(found) == 0 {
					t.Errorf("search: %d traces, %v; want what is left", len(found), err)
				}
				s.retain()
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
