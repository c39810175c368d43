package backup

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// source is a data directory with some keys, and a state with some more.
func source(t *testing.T, store *state.Store) Source {
	t.Helper()
	s := Source{Store: store, Cluster: "c-1", DataDir: t.TempDir(), Dir: filepath.Join(t.TempDir(), "backups")}
	for name, text := range map[string]string{"ca/key.pem": "the cluster key", "ca/cert.pem": "its certificate", "license/issuer.key": "the issuer"} {
		put(t, filepath.Join(s.DataDir, name), text)
	}
	for i := range 20 {
		if _, err := store.Put(t.Context(), fmt.Sprintf("k/%02d", i), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrite(t *testing.T) {
	s := source(t, statetest.Memory(t))
	now := time.Now()
	b, err := Write(t.Context(), s, now)
	if err != nil || b.Keys != 20 || b.Cluster != "c-1" || b.Epoch != 1 {
		t.Fatalf("Write: %+v, %v", b, err)
	}
	if again, err := Write(t.Context(), s, now); err != nil || again != b {
		t.Errorf("a second backup in one second: %+v, %v; want the first", again, err)
	}
	err = filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if fi, ierr := d.Info(); err == nil && ierr == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v; want it for its owner alone", path, fi.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca/key.pem", "ca/cert.pem", "license/issuer.key"} {
		want, _ := os.ReadFile(filepath.Join(s.DataDir, name))
		if got, err := os.ReadFile(filepath.Join(b.Path, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	f, err := os.Open(filepath.Join(b.Path, fileSnapshot))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := state.ReadSnapshot(f, func(state.KV) error { return nil }); err != nil || info.Keys != 20 {
		t.Errorf("its snapshot: %+v, %v; want 20 keys", info, err)
	}
}

// TestRegular lets a manager run for two days, with a restart.
func TestRegular(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := source(t, statetest.Memory(t))
		put(t, filepath.Join(s.Dir, unfinished+"1", fileSnapshot), "of a manager that was killed")
		start := func() (stop func()) {
			r := NewRegular(Options{Source: s, Every: time.Hour, Keep: 5, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: metrics.NewSet()})
			done := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { done <- r.Run(ctx) }()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		backups := func() int {
			t.Helper()
			list, err := List(s.Dir)
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		stop := start()
		time.Sleep(time.Minute)
		if got := backups(); got != 1 {
			t.Errorf("after a minute: %d backups; want 1", got)
		}
		stop()
		time.Sleep(time.Minute)
		stop = start()
		time.Sleep(30 * time.Minute)
		if got := backups(); got != 1 {
			t.Errorf("half an hour after a restart: %d backups; want the 1 of before", got)
		}
		time.Sleep(2 * time.Hour)
		if got := backups(); got != 3 {
			t.Errorf("after two and a half hours: %d backups; want 3", got)
		}
		time.Sleep(45 * time.Hour)
		stop()
		list, err := List(s.Dir)
		if err != nil || len(list) != 5 || time.Since(list[4].Taken) > time.Hour {
			t.Errorf("after two days: %+v, %v; want the newest 5", list, err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.Dir, unfinished+"*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}
