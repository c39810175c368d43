package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/etcd"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// onEngines runs one suite on both engines.
func onEngines(t *testing.T, suite func(t *testing.T, s *state.Store)) {
	t.Run("etcd", func(t *testing.T) { suite(t, statetest.New(t)) })
	t.Run("memory", func(t *testing.T) { suite(t, statetest.Memory(t)) })
}

func TestKeys(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		if _, err := s.Get(ctx, "a"); !errors.Is(err, state.ErrNotFound) {
			t.Fatalf("Get of nothing: %v; want ErrNotFound", err)
		}
		v1, err := s.Put(ctx, "a", []byte("1"))
		if err != nil {
			t.Fatal(err)
		}
		kv, err := s.Get(ctx, "a")
		if err != nil || string(kv.Value) != "1" || kv.Version != v1 || kv.Key != "a" {
			t.Fatalf("Get: %+v, %v; want 1 at %d", kv, err, v1)
		}
		if err := s.Create(ctx, "a", nil); !errors.Is(err, state.ErrConflict) {
			t.Errorf("Create of an existing key: %v; want ErrConflict", err)
		}
		v2, err := s.Update(ctx, "a", []byte("2"), v1)
		if err != nil || v2 <= v1 {
			t.Fatalf("Update: %d, %v; want above %d", v2, err, v1)
		}
		if _, err := s.Update(ctx, "a", []byte("3"), v1); !errors.Is(err, state.ErrConflict) {
			t.Errorf("Update of an old version: %v; want ErrConflict", err)
		}
		if _, err := s.Update(ctx, "b", []byte("3"), v1); !errors.Is(err, state.ErrConflict) {
			t.Errorf("Update of a missing key: %v; want ErrConflict", err)
		}
		if err := s.Delete(ctx, "a"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if err := s.Delete(ctx, "a"); err != nil {
			t.Errorf("Delete of nothing: %v", err)
		}
		if err := s.Create(ctx, "a", []byte("4")); err != nil {
			t.Errorf("Create after Delete: %v", err)
		}
	})
}

func TestList(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		for _, k := range []string{"n/2", "n/1", "n", "o/1", "n/10"} {
			if _, err := s.Put(ctx, k, []byte(k)); err != nil {
				t.Fatal(err)
			}
		}
		f := func(prefix, want string) {
			t.Helper()
			kvs, err := s.List(ctx, prefix)
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, kv := range kvs {
				keys = append(keys, kv.Key)
			}
			if got := strings.Join(keys, " "); got != want {
				t.Errorf("List(%q): got %q; want %q", prefix, got, want)
			}
		}
		f("n/", "n/1 n/10 n/2")
		f("n", "n n/1 n/10 n/2")
		f("", "n n/1 n/10 n/2 o/1")
		f("x", "")
	})
}

func TestListPages(t *testing.T) {
	s := statetest.New(t)
	for i := 0; i < 1300; i += 100 {
		var ops []state.Op
		for j := i; j < i+100; j++ {
			ops = append(ops, state.OpPut(fmt.Sprintf("k/%05d", j), nil))
		}
		if err := s.Txn(t.Context(), nil, ops); err != nil {
			t.Fatal(err)
		}
	}
	kvs, err := s.List(t.Context(), "k/")
	if err != nil || len(kvs) != 1300 {
		t.Fatalf("List: %d keys, %v; want 1300", len(kvs), err)
	}
	if !slices.IsSortedFunc(kvs, func(a, b state.KV) int { return strings.Compare(a.Key, b.Key) }) {
		t.Error("List is not ordered by key")
	}
}

func TestTxn(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		v, err := s.Put(ctx, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		conds := []state.Cond{state.IfVersion("a", v), state.IfAbsent("b")}
		if err := s.Txn(ctx, conds, []state.Op{state.OpDelete("a"), state.OpPut("b", nil), state.OpPut("c", nil)}); err != nil {
			t.Fatal(err)
		}
		err = s.Txn(ctx, conds, []state.Op{state.OpPut("d", nil)})
		if !errors.Is(err, state.ErrConflict) {
			t.Errorf("Txn with failed conditions: %v; want ErrConflict", err)
		}
		kvs, err := s.List(ctx, "")
		if err != nil || len(kvs) != 2 || kvs[0].Key != "b" || kvs[1].Key != "c" || kvs[0].Version != kvs[1].Version {
			t.Errorf("List: %+v, %v; want b and c at one version", kvs, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		for _, key := range []string{"", "~epoch", "a\x00", "ä", strings.Repeat("k", 513)} {
			if _, err := s.Put(ctx, key, nil); err == nil {
				t.Errorf("Put(%q): no error", key)
			}
			if _, err := s.Get(ctx, key); err == nil || errors.Is(err, state.ErrNotFound) {
				t.Errorf("Get(%q): %v; want a refusal", key, err)
			}
		}
		if _, err := s.Put(ctx, "big", make([]byte, state.MaxValueBytes+1)); err == nil || !strings.Contains(err.Error(), "chunks") {
			t.Errorf("Put of too much: %v", err)
		}
		if _, err := s.Put(ctx, "big", make([]byte, state.MaxValueBytes)); err != nil {
			t.Errorf("Put of the most: %v", err)
		}
		if err := s.Txn(ctx, nil, []state.Op{state.OpPut("a", nil), state.OpDelete("a")}); err == nil {
			t.Error("Txn writing a key twice: no error")
		}
		var ops []state.Op
		for i := range state.MaxTxnOps {
			ops = append(ops, state.OpPut(fmt.Sprint("many/", i), nil))
		}
		if err := s.Txn(ctx, nil, ops); err != nil {
			t.Errorf("Txn of the most: %v", err)
		}
		if err := s.Txn(ctx, nil, append(ops, state.OpPut("one", nil))); err == nil {
			t.Error("Txn of too many: no error")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "a"); !errors.Is(err, state.ErrClosed) {
			t.Errorf("Get after Close: %v; want ErrClosed", err)
		}
		if _, err := s.Put(ctx, "a", nil); !errors.Is(err, state.ErrClosed) {
			t.Errorf("Put after Close: %v; want ErrClosed", err)
		}
	})
}

// TestCounter is many writers on one key: no update may be lost.
func TestCounter(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		if _, err := state.PutJSON(ctx, s, "n", 0); err != nil {
			t.Fatal(err)
		}
		const writers, each = 8, 20
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					for {
						n, version, err := state.GetJSON[int](ctx, s, "n")
						if err == nil {
							_, err = state.UpdateJSON(ctx, s, "n", n+1, version)
						}
						if err == nil {
							break
						}
						if !errors.Is(err, state.ErrConflict) {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		if n, _, err := state.GetJSON[int](ctx, s, "n"); err != nil || n != writers*each {
			t.Errorf("counter: %d, %v; want %d", n, err, writers*each)
		}
	})
}

func TestWatch(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		all, some := s.Watch(ctx, ""), s.Watch(ctx, "b/")
		if err := s.Txn(ctx, nil, []state.Op{state.OpPut("a", []byte("1")), state.OpPut("b/1", []byte("2"))}); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(ctx, "b/1"); err != nil {
			t.Fatal(err)
		}
		show := func(cs []state.Change) string {
			var b strings.Builder
			for _, c := range cs {
				fmt.Fprintf(&b, "%s=%s deleted=%t;", c.Key, c.Value, c.Deleted)
			}
			return b.String()
		}
		for _, f := range []struct {
			ch   <-chan []state.Change
			want string
		}{
			{all, "a=1 deleted=false;b/1=2 deleted=false;"},
			{all, "b/1= deleted=true;"},
			{some, "b/1=2 deleted=false;"},
			{some, "b/1= deleted=true;"},
		} {
			if got := show(<-f.ch); got != f.want {
				t.Errorf("Watch: got %q; want %q", got, f.want)
			}
		}
		cancel()
		for range all {
		}
		for range s.Watch(ctx, "") { // of an ended context: closed at once
		}
		open := s.Watch(t.Context(), "")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range open {
		}
	})
}

// TestWatchMany cancels many watches together, which deadlocks etcd's own
// in-process client.
func TestWatchMany(t *testing.T) {
	s := statetest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	var chs []<-chan []state.Change
	for range 500 {
		chs = append(chs, s.Watch(ctx, "k"))
	}
	if _, err := s.Put(ctx, "k", nil); err != nil {
		t.Fatal(err)
	}
	for _, ch := range chs {
		<-ch
	}
	cancel()
	for _, ch := range chs {
		for range ch {
		}
	}
}

func TestSlowWatcherResyncs(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		slow, mark := s.Watch(ctx, "k/"), s.Watch(ctx, "mark")
		for i := range 200 {
			if _, err := s.Put(ctx, fmt.Sprintf("k/%d", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Put(ctx, "mark", nil); err != nil {
			t.Fatal(err)
		}
		<-mark // all were handed out
		resyncs, after := 0, 0
		for len(slow) > 0 {
			for _, c := range <-slow {
				if c.Resync {
					resyncs++
					after = 0
				} else {
					after++
				}
			}
		}
		if resyncs != 1 || after == 0 {
			t.Errorf("slow reader got %d resyncs and %d changes after; want 1 and some", resyncs, after)
		}
	})
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := statetest.Open(t, dir)
	v, err := s.Put(t.Context(), "a", []byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Open(t.Context(), etcd.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("second Open of one directory: %v; want a refusal", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	s = statetest.Open(t, dir)
	t.Logf("second start took %v", time.Since(start))
	kv, err := s.Get(t.Context(), "a")
	if err != nil || string(kv.Value) != "kept" || kv.Version != v {
		t.Fatalf("Get after a restart: %+v, %v; want kept at %d", kv, err, v)
	}
	if _, err := s.Update(t.Context(), "a", nil, v); err != nil {
		t.Errorf("Update after a restart: %v", err)
	}
	if got := s.Epoch(); got != 1 {
		t.Errorf("Epoch: got %d; want 1", got)
	}
}

func TestReadOnly(t *testing.T) {
	s, err := etcd.Open(t.Context(), etcd.Options{Dir: t.TempDir(), MinFreeBytes: 1 << 62})
	if err == nil {
		defer s.Close()
		_, err = s.Put(t.Context(), "a", nil)
	}
	if !errors.Is(err, state.ErrReadOnly) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("Put on a full disk: %v; want ErrReadOnly", err)
	}
}

func TestSnapshotRestore(t *testing.T) {
	onEngines(t, func(t *testing.T, s *state.Store) {
		ctx := t.Context()
		big := bytes.Repeat([]byte("x"), state.MaxValueBytes)
		for i := range 600 {
			if _, err := s.Put(ctx, fmt.Sprintf("k/%04d", i), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range []string{"big/1", "big/2"} {
			if _, err := s.Put(ctx, k, big); err != nil {
				t.Fatal(err)
			}
		}
		want, err := s.List(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		var snap bytes.Buffer
		if err := s.Snapshot(ctx, &snap); err != nil {
			t.Fatal(err)
		}

		dir := t.TempDir() + "/new"
		o := etcd.Options{Dir: dir, MinFreeBytes: 1}
		for _, cut := range []int{0, 7, 24, 30, snap.Len() / 2, snap.Len() - 1} {
			if _, err := etcd.Restore(ctx, o, bytes.NewReader(snap.Bytes()[:cut])); !errors.Is(err, state.ErrBadSnapshot) {
				t.Errorf("Restore of a snapshot cut at %d: %v; want ErrBadSnapshot", cut, err)
			}
		}
		info, err := etcd.Restore(ctx, o, bytes.NewReader(snap.Bytes()))
		if err != nil || info.Snapshot.Keys != len(want) {
			t.Fatalf("Restore: %+v, %v; want %d keys", info, err, len(want))
		}
		if _, err := etcd.Restore(ctx, o, bytes.NewReader(snap.Bytes())); err == nil {
			t.Error("Restore into a full directory: no error")
		}
		s2 := statetest.Open(t, dir)
		got, err := s2.List(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		same := func(a, b state.KV) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }
		if !slices.EqualFunc(got, want, same) {
			t.Errorf("restored %d keys differ from the %d saved", len(got), len(want))
		}
		if s2.Epoch() <= s.Epoch() || s2.Epoch() != info.Epoch {
			t.Errorf("Epoch after the restore: got %d; want %d, above %d", s2.Epoch(), info.Epoch, s.Epoch())
		}
	})
}

func FuzzReadSnapshot(f *testing.F) {
	s := statetest.Memory(f)
	for _, k := range []string{"a", "b/1"} {
		if _, err := s.Put(f.Context(), k, []byte("value")); err != nil {
			f.Fatal(err)
		}
	}
	var snap bytes.Buffer
	if err := s.Snapshot(f.Context(), &snap); err != nil {
		f.Fatal(err)
	}
	f.Add(snap.Bytes())
	f.Add(snap.Bytes()[:40])
	f.Add([]byte("BNSTATE1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := ""
		_, err := state.ReadSnapshot(bytes.NewReader(b), func(kv state.KV) error {
			if kv.Key <= last || len(kv.Value) > len(b) {
				t.Fatalf("key %q after %q with %d bytes from %d", kv.Key, last, len(kv.Value), len(b))
			}
			last = kv.Key
			return nil
		})
		if err != nil && !errors.Is(err, state.ErrBadSnapshot) {
			t.Fatalf("error is no ErrBadSnapshot: %v", err)
		}
	})
}
