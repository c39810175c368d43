package metrics

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb"
)

// damages are what disks, power failures and people do to files.
var damages = []struct {
	name string
	do   func([]byte) []byte
}{
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
// store to open, to take samples and to answer, whatever is lost.
func TestDamagedFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("opens the store a hundred times")
	}
	whole := t.TempDir()
	s, err := Open(Options{Dir: whole})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		md, ms := gateway("n-1")
		at := now.Add(time.Duration(i-41) * 10 * time.Minute)
		gauge(ms, "g", at, float64(i))
		exponential(ms, "e", at.Add(-time.Minute), at, 3, 0, []uint64{uint64(i + 1)}, 1)
		write(t, s, node1, md)
	}
	md, ms := gateway("n-1")
	gauge(ms, "g", now.Add(-5*time.Hour), 3.5) // late: another log
	write(t, s, node1, md)
	if err := s.db.CompactHead(tsdb.NewRangeHead(s.db.Head(), now.Add(-8*time.Hour).UnixMilli(), now.Add(-4*time.Hour).UnixMilli())); err != nil {
		t.Fatal(err)
	}
	for i := range 300 { // fills chunks, which go to files of their own
		md, ms := gateway("n-1")
		gauge(ms, "g", now.Add(time.Duration(i-300)*time.Second), float64(i))
		write(t, s, node1, md)
	}
	s.db.ForceHeadMMap()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damages := append(damages, struct {
		name string
		do   func([]byte) []byte
	}{"missing", nil})
	for _, file := range filesOf(t, whole) {
		for _, d := range damages {
			t.Run(strings.ReplaceAll(file, string(filepath.Separator), ":")+" "+d.name, func(t *testing.T) {
				dir := t.TempDir()
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
				if d.do != nil {
					if err := os.WriteFile(p, d.do(b), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				s := openStore(t, func(o *Options) { o.Dir = dir; o.Log = nil })
				md, ms := gateway("n-2")
				gauge(ms, "g", now, 7)
				write(t, s, node1, md)
				wantQuery(t, s, `g{instance="n-2"}`, now, `{__name__="g", group="default", instance="n-2", job="binnacle-gateway", process="p-1"} 7`)
				// What is left may be anything but a panic.
				_, err = s.QueryRange(t.Context(), `rate(e[20m]) or g`, now.Add(-8*time.Hour), now.Add(time.Minute), time.Minute)
				t.Log(err)
			})
		}
	}
}

func filesOf(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			files = append(files, p)
		}
		return err
	})
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	return files
}

func TestLocked(t *testing.T) {
	s := openStore(t)
	if _, err := Open(Options{Dir: s.opts.Dir}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a second store on one directory: %v; want a refusal", err)
	}
}
