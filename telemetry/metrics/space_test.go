package metrics

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// smallDisk mounts a file system of the given size in MiB, or skips the test
// where that is not allowed.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk fills a small disk from outside: writes of all three kinds are
// refused as retryable, queries go on, writes are taken again when there is
// room, and nothing is lost by a restart.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "48m")
	o := Options{Dir: filepath.Join(disk, "metrics"), MinFreeBytes: 8 << 20}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	put := func(i int) error {
		time.Sleep(2 * spaceInterval) // the disk is looked at again
		md, ms := gateway("n-1")
		gauge(ms, "g", now.Add(time.Duration(i)*time.Second), float64(i))
		_, _, err := send(t.Context(), s, node1, md)
		return err
	}
	if err := put(1); err != nil {
		t.Fatal(err)
	}

	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 42<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	err = put(2)
	unavailable, ok := errors.AsType[*Unavailable](err)
	if !ok || unavailable.RetryAfter() <= 0 || !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "free some space") {
		t.Fatalf("a write to a full disk: %v; want a retryable refusal that says what to do", err)
	}
	b := s.Batch()
	if err := b.AppendFloat(s.Series(labels.FromStrings(nameLabel, "roll:up")), now.UnixMilli(), 1); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a batch on a full disk: %v", err)
	}
	if err := s.Scrape(t.Context(), nil, labels.FromStrings("job", "m"), now); !errors.Is(err, ErrReadOnly) {
		t.Errorf("own metrics on a full disk: %v", err)
	}
	at := now.Add(10 * time.Second)
	wantQuery(t, s, "g", at, `{__name__="g", group="default", instance="n-1", job="binnacle-gateway", process="p-1"} 1`)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := put(3); err != nil {
		t.Fatalf("a write after space returned: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantQuery(t, s, "count_over_time(g[1m])", at, `{group="default", instance="n-1", job="binnacle-gateway", process="p-1"} 2`)
}

// TestTornByFullDisk lets a commit meet a full disk. The record may be torn, and
// what came after it would be lost at the next start: so nothing is taken until
// then, and then all that was acknowledged is there.
func TestTornByFullDisk(t *testing.T) {
	disk := smallDisk(t, "48m")
	o := Options{Dir: filepath.Join(disk, "metrics"), MinFreeBytes: -1}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	fill := func() {
		for size := 1 << 20; size > 0; size /= 2 {
			for {
				if _, err := f.Write(make([]byte, size)); err != nil {
					break
				}
			}
		}
	}
	put := func(i int) error {
		md, ms := gateway("n-1")
		for k := range 200 { // more than a page of log
			gauge(ms, "g", now.Add(time.Duration(i)*time.Second), float64(i), "k", strings.Repeat("x", 100), "n", string(rune('a'+k)))
		}
		_, _, err := send(t.Context(), s, node1, md)
		return err
	}
	if err := put(1); err != nil {
		t.Fatal(err)
	}
	fill()
	kept := 1
	for ; ; kept++ {
		if err = put(kept + 1); err != nil {
			break
		}
		if kept > 1000 {
			t.Fatal("the disk never filled")
		}
	}
	f.Close()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := put(kept + 2); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("a write after a torn record: %v; want a refusal that says what to do", err)
	}
	_ = s.Close()
	if s, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, l := range query(t, s, "min(g)", now.Add(time.Duration(kept)*time.Second)) {
		if want := `{} ` + formatBound(float64(kept)); l != want {
			t.Errorf("after a restart: %s; want %s", l, want)
		}
	}
	if err := put(kept + 3); err != nil {
		t.Errorf("a write after the restart: %v", err)
	}
}
