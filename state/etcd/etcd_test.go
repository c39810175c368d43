package etcd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/binnacle-project/binnacle/state"
)

// TestMain lets the test binary be the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_TEST_WRITER"); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func openTest(t *testing.T, o Options) (*state.Store, *engine) {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.MinFreeBytes = 1
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.setDefaults()
	var e *engine
	s, err := state.OpenOn(t.Context(), state.Options{Log: o.Log, Metrics: o.Metrics}, func(f state.Feed) (_ state.Engine, err error) {
		e, err = openEngine(t.Context(), o, f)
		return e, err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, e
}

// TestLostAnswer loses answers of writes at every place where that can happen.
func TestLostAnswer(t *testing.T) {
	s, e := openTest(t, Options{})
	ctx := t.Context()
	sl := <-e.slots
	create := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision("k"), "=", 0)}
	put := func(id, value string) []clientv3.Op {
		return []clientv3.Op{clientv3.OpPut("k", value), clientv3.OpPut(sl.key, id)}
	}

	// The answer of a success is lost: the second try finds its own write.
	before := sl.rev
	rev, err := e.tryCommit(ctx, sl, "id1", create, put("id1", "1"))
	if err != nil {
		t.Fatal(err)
	}
	sl.rev = before
	again, err := e.tryCommit(ctx, sl, "id1", create, put("id1", "1"))
	if err != nil || again != rev {
		t.Errorf("second try of a write that happened: %d, %v; want success at %d", again, err, rev)
	}

	// The caller gave up on that write: the next one learns of it.
	sl.rev = before
	if _, err := e.tryCommit(ctx, sl, "id2", create, put("id2", "2")); !errors.Is(err, state.ErrConflict) {
		t.Errorf("another create: %v; want ErrConflict", err)
	}
	sl.rev = before
	if _, err := e.tryCommit(ctx, sl, "id3", nil, put("id3", "3")); err != nil {
		t.Errorf("a write after one given up: %v", err)
	}

	// A try that comes late finds the slot taken and does nothing.
	late := clientv3.Compare(clientv3.ModRevision(sl.key), "=", rev)
	resp, err := e.client.Txn(ctx).If(late).Then(put("id1", "late")...).Commit()
	if err != nil || resp.Succeeded {
		t.Errorf("a late try: succeeded=%t, %v; want refused", resp.Succeeded, err)
	}
	e.slots <- sl
	if kv, err := s.Get(ctx, "k"); err != nil || string(kv.Value) != "3" {
		t.Errorf("in the end: %s, %v; want 3", kv.Value, err)
	}
}

// TestSlotsAreReused wants no more reserved keys after a restart than before.
func TestSlotsAreReused(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s, e := openTest(t, Options{Dir: dir})
		for i := range 2 * writeSlots {
			if _, err := s.Put(t.Context(), "k", fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		if err := e.Scan(t.Context(), slotPrefix, slotPrefix+"\xff", func(state.KV) error { n++; return nil }); err != nil || n > writeSlots {
			t.Errorf("slots: %d, %v; want at most %d", n, err, writeSlots)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedLog flips a byte in the last record of the log.
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTest(t, Options{Dir: dir})
	if _, err := s.Put(t.Context(), "k", []byte(strings.Repeat("precious", 100))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs: %v, %v", logs, err)
	}
	raw, err := os.ReadFile(logs[len(logs)-1])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(raw), "precious")
	raw[at] ^= 1
	if err := os.WriteFile(logs[len(logs)-1], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Dir: dir, MinFreeBytes: 1})
	if !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), "restore the newest backup") {
		t.Errorf("Open of a damaged log: %v; want ErrDamaged and what to do", err)
	}
}

// TestQuota overwrites one key until the quota is used up by history; the store
// must find its way out by itself.
func TestQuota(t *testing.T) {
	s, _ := openTest(t, Options{QuotaBytes: 8 << 20})
	value := make([]byte, 256<<10)
	refused := 0
	// etcd measures the file when it commits, ten times a second: a fast disk takes
	// more than the quota before the first refusal.
	for i := 0; refused == 0; i++ {
		if i == 4000 {
			t.Fatal("1,000 MiB of history went into a quota of 8 MiB")
		}
		_, err := s.Put(t.Context(), "k", value)
		for tries := 0; errors.Is(err, state.ErrReadOnly); tries++ {
			refused++
			if tries > 100 {
				t.Fatalf("write %d stays refused: %v", i, err)
			}
			time.Sleep(50 * time.Millisecond) // between asking again, not to wait for
			_, err = s.Put(t.Context(), "k", value)
		}
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

// TestNoSocket wants the process to listen nowhere.
func TestNoSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc/net")
	}
	openTest(t, Options{})
	inodes := make(map[string]bool)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(link, "socket:") {
			inodes[strings.Trim(strings.TrimPrefix(link, "socket:"), "[]")] = true
		}
	}
	if len(inodes) > 0 {
		t.Errorf("open sockets: %v; want none", inodes)
	}
	// The placeholder of the peer address must not be taken for a real one.
	if c, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second); err == nil {
		c.Close()
		t.Log("something else listens on port 1 here")
	}
}

func writeUntilKilled(dir string) {
	s, err := Open(context.Background(), Options{Dir: dir, MinFreeBytes: 1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if _, err := s.Put(context.Background(), fmt.Sprintf("k/%08d", i), []byte("v")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

// TestKill kills a writing process without warning: what it was told to be
// written is there.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), "STATE_TEST_WRITER="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.Atoi(lines.Text()); err == nil { // the last line may be cut
				last = max(last, n)
			}
			if last == 50+37*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		if last < 50 {
			t.Fatalf("round %d: the writer ended by itself after %d", round, last)
		}
		s, _ := openTest(t, Options{Dir: dir})
		for i := range last {
			if _, err := s.Get(t.Context(), fmt.Sprintf("k/%08d", i)); err != nil {
				t.Fatalf("round %d: acknowledged write %d of %d: %v", round, i, last, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
