package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemo starts the demo as `make run` does and ends it in three ways: Ctrl-C,
// a closed terminal and kill -9. Nothing may go on afterwards, and a second
// start continues with the data of the first.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	offset := 11000 + os.Getpid()%200*50 // away from a demo that somebody runs, below the ephemeral ports
	args := []string{"demo", "--dir", dir, "--port-offset", strconv.Itoa(offset), "--nodes", "2"}

	var cluster string
	for _, end := range []struct {
		name string
		sig  syscall.Signal
	}{{"Ctrl-C", syscall.SIGINT}, {"closed terminal", syscall.SIGHUP}, {"kill -9", syscall.SIGKILL}} {
		t.Run(end.name, func(t *testing.T) {
			p := start(t, "demo", "binnacle", args...)
			eventually(t, 60*time.Second, "the demo is ready", func() error {
				select {
				case <-p.done:
					t.Fatalf("the demo ended: %s", p.out)
				default:
				}
				if !strings.Contains(p.out.String(), "/login?code=") {
					return fmt.Errorf("it says: %s", p.out)
				}
				return nil
			})
			status := clusterOf(t, offset, dir)
			if cluster != "" && status != cluster {
				t.Errorf("the second start made cluster %s; the first was %s", status, cluster)
			}
			cluster = status
			_ = p.cmd.Process.Signal(end.sig)
			<-p.done
			eventually(t, 20*time.Second, "nothing of the demo goes on", func() error { return nothingUses(dir) })
		})
	}

	t.Run("port in use", func(t *testing.T) {
		// A process that was killed may hold its sockets a moment longer than its
		// command line.
		var ln net.Listener
		eventually(t, 10*time.Second, "the port of the last demo is free", func() (err error) {
			ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 9897+offset))
			return err
		})
		defer ln.Close()
		p := start(t, "demo", "binnacle", args...)
		<-p.done
		out := p.out.String()
		if p.cmd.ProcessState.ExitCode() == 0 || !strings.Contains(out, strconv.Itoa(9897+offset)) || !strings.Contains(out, "--port-offset") {
			t.Errorf("the message names not the port and the flag: %s", out)
		}
	})
}

// clusterOf asks the demo's manager for its cluster id.
func clusterOf(t *testing.T, offset int, dir string) string {
	t.Helper()
	c := &cluster{t: t, base: fmt.Sprintf("http://127.0.0.1:%d", 9897+offset), dir: dir}
	var out struct {
		ID string `json:"id"`
	}
	if err := c.get("/v1/cluster", c.token("admin.token"), &out); err != nil {
		t.Fatal(err)
	}
	return out.ID
}

// nothingUses looks for processes that name dir on their command line.
func nothingUses(dir string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		if strings.Contains(string(b), dir) {
			return fmt.Errorf("%s runs on: %s", filepath.Dir(f), strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return nil
}
