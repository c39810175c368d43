package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// server is one store in a process of its own.
type server struct {
	contender
	dir    string
	ready  string // URL that answers 200 when it serves
	write  string // URL of OTLP over HTTP
	api    string // URL of the Prometheus HTTP API, without /api/v1
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	client *http.Client
	nodes  []*http.Client // of each node, where they have connections of their own
}

// ownConnections gives each of n nodes a connection of its own, as in a fleet.
func (s *server) ownConnections(n int) {
	for range n {
		s.nodes = append(s.nodes, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: s.client.Timeout})
	}
}

// start runs a contender in a directory of its own below dir and waits until
// it serves.
func start(ctx context.Context, c contender, bin, dir string) (*server, error) {
	s := &server{contender: c, dir: filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(c.name)), done: make(chan struct{})}
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 2 * time.Minute}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	args, err := c.setup(s)
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", c.name, err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	binary := filepath.Join(bin, c.binary)
	if c.binary == self {
		if binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	s.cmd = exec.Command(binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	for {
		resp, err := s.client.Get(s.ready)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-s.done:
			return nil, fmt.Errorf("%s ended before it served: see %s", c.name, log.Name())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// clockTick is the unit of /proc/PID/stat on Linux, whatever the kernel's HZ.
const clockTick = 10 * time.Millisecond

// cpu returns the CPU time, user and system, that the process has used.
func (s *server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The command name stands in parentheses and may hold anything; utime and
	// stime are the 12th and 13th field after it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", s.cmd.Process.Pid, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// quiet waits until the process does next to nothing.
func (s *server) quiet(ctx context.Context) error {
	for {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		if after, err := s.cpu(); err != nil || after-before < 100*time.Millisecond {
			return err
		}
	}
}

// memory returns the resident set now and at its peak, in bytes.
func (s *server) memory() (now, peak int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d", &kib); err == nil {
			peak = kib << 10
		}
	}
	return now, peak
}

// disk returns the bytes of all files of the server's data.
func (s *server) disk() (n int64) {
	_ = filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		return nil
	})
	return n
}

// send posts bodies, one of each node, over conns connections and returns the first error; a
// partial success is one.
func (s *server) send(bodies [][]byte, conns int) error {
	next := make(chan int)
	errs := make(chan error, conns)
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			for n := range next {
				if err := s.sendOne(n, bodies[n]); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for n := range bodies {
		next <- n
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		return fmt.Errorf("%s: %w", s.name, err)
	default:
		return nil
	}
}

// nodeHeader tells the floor whose export a request is; others do not look at it.
const nodeHeader = "Bench-Node"

func (s *server) sendOne(node int, body []byte) error {
	req, err := http.NewRequest(http.MethodPost, s.write, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set(nodeHeader, strconv.Itoa(node))
	client := s.client
	if s.nodes != nil {
		client = s.nodes[node]
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s: %.300s", resp.Status, answer)
	}
	r := pmetricotlp.NewExportResponse()
	if r.UnmarshalProto(answer) == nil && r.PartialSuccess().RejectedDataPoints() > 0 {
		return fmt.Errorf("%d points rejected: %s", r.PartialSuccess().RejectedDataPoints(), r.PartialSuccess().ErrorMessage())
	}
	return nil
}

// freeAddr returns a loopback address that nobody listens on now.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
