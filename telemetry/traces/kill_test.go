package traces

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// TestKill kills a process that writes, again and again, and wants each span
// that was acknowledged more than a second before to be there afterwards.
func TestKill(t *testing.T) {
	if dir := os.Getenv("BINNACLE_TEST_KILL"); dir != "" {
		writeUntilKilled(t, dir)
		return
	}
	if testing.Short() {
		t.Skip("runs other processes for seconds")
	}
	dir, now, seen := t.TempDir(), time.Now(), uint64(0)
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), "BINNACLE_TEST_KILL="+dir, fmt.Sprint("BINNACLE_TEST_FROM=", seen))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		type ack struct {
			n  uint64
			at time.Time
		}
		var acks []ack
		end := time.Now().Add(1500*time.Millisecond + rand.N(700*time.Millisecond))
		for lines := bufio.NewScanner(out); lines.Scan() && time.Now().Before(end); {
			var n uint64
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &n); err == nil {
				acks = append(acks, ack{n, time.Now()})
			}
		}
		killed := time.Now()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s := openStore(t, vfs.Default, &now, func(o *Options) { o.Dir = dir })
		durable := 0
		for _, a := range acks {
			if killed.Sub(a.at) <= time.Second {
				continue
			}
			durable++
			if _, err := s.Trace(t.Context(), numbered(a.n)); err != nil {
				t.Fatalf("round %d: span %d, acknowledged %v before the kill: %v", round, a.n, killed.Sub(a.at), err)
			}
		}
		if durable == 0 {
			t.Errorf("round %d: no span was acknowledged a second before the kill", round)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		seen = acks[len(acks)-1].n
	}
}

func numbered(n uint64) pcommon.TraceID {
	var id pcommon.TraceID
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func writeUntilKilled(t *testing.T, dir string) {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	go s.Run(t.Context())
	var n uint64
	fmt.Sscan(os.Getenv("BINNACLE_TEST_FROM"), &n)
	for {
		n++
		td := make1(spec{service: "a", trace: 1, id: 1})
		td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).SetTraceID(numbered(n))
		write(t, s, td)
		fmt.Printf("acknowledged %d\n", n)
		time.Sleep(time.Millisecond) // a rate that leaves the parent time to read
	}
}
