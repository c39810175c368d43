package metrics

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestKill kills a process that writes, again and again, and wants each sample
// that was acknowledged to be there afterwards: a killed process loses nothing,
// since each commit is in the system's hands. (What a power failure may lose is
// bounded by TestRun.)
func TestKill(t *testing.T) {
	if dir := os.Getenv("BINNACLE_TEST_KILL"); dir != "" {
		writeUntilKilled(t, dir)
		return
	}
	if testing.Short() {
		t.Skip("runs other processes for seconds")
	}
	dir := t.TempDir()
	acknowledged := 0
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), "BINNACLE_TEST_KILL="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until, last := 50+rand.IntN(400), 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &last); err == nil && last >= acknowledged+until {
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if last == 0 {
			t.Fatalf("round %d: the process acknowledged nothing", round)
		}
		acknowledged = last

		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		got := query(t, s, "sum(count_over_time(g[5h]))", time.Now().Add(time.Minute))
		var n int
		if _, err := fmt.Sscanf(strings.Join(got, ""), "{} %d", &n); err != nil || n < acknowledged {
			t.Errorf("round %d: %v samples; want at least the %d that were acknowledged", round, got, acknowledged)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		acknowledged = n
	}
}

func writeUntilKilled(t *testing.T, dir string) {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	go s.Run(t.Context())
	count := 0
	for _, l := range query(t, s, "sum(count_over_time(g[5h]))", time.Now().Add(time.Minute)) {
		fmt.Sscanf(l, "{} %d", &count)
	}
	begin := time.Now().Add(-2 * time.Hour).Truncate(time.Hour)
	for i := count; ; i++ {
		md, ms := gateway("n-1")
		gauge(ms, "g", begin.Add(time.Duration(i)*100*time.Millisecond), float64(i))
		write(t, s, node1, md)
		fmt.Printf("acknowledged %d\n", i+1)
	}
}
