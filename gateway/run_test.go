package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/worker"
)

// The environment that makes the test binary a gateway process.
const (
	envRun = "BINNACLE_TEST_RUN" // its own file
	envDie = "BINNACLE_TEST_DIE_WITH_PARENT"
	// how long to serve on after SIGTERM; not at all if it is not set
	envDelay = "BINNACLE_TEST_DRAIN_DELAY"
)

func TestMain(m *testing.M) {
	switch file := os.Getenv(envRun); {
	case os.Getenv(control.WorkerEnv) != "":
		os.Exit(worker.Main())
	case os.Getenv(envSupervise) != "":
		os.Exit(superviseProcess(os.Getenv(envSupervise)))
	case file != "":
		os.Exit(runProcess(file))
	}
	os.Exit(m.Run())
}

func runProcess(file string) int {
	if os.Getpid() == 1 { // of a namespace: with the /proc that belongs to it
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	delay, _ := time.ParseDuration(os.Getenv(envDelay))
	err := Run(ctx, Options{
		DrainDelay: &delay,
		ConfigFile: file, DieWithParent: os.Getenv(envDie) != "", WorkerCommand: []string{os.Args[0]},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Reload: hup,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// gatewayProc is a gateway in a process of its own, leader of its group.
type gatewayProc struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

func startProc(t *testing.T, file string, env ...string) *gatewayProc {
	t.Helper()
	return startProcAs(t, syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}, file, env...)
}

func startProcAs(t *testing.T, attr syscall.SysProcAttr, file string, env ...string) *gatewayProc {
	t.Helper()
	p := &gatewayProc{t: t, cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), envRun+"="+file), env...)
	// A file rather than a pipe: a worker that outlives its agent holds it.
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &attr
	if err := p.cmd.Start(); errors.Is(err, syscall.EPERM) && attr.Cloneflags != 0 {
		t.Skipf("this test needs the right to make namespaces, such as root has: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("log of process %d:\n%s", p.cmd.Process.Pid, b)
		}
	})
	return p
}

// wait waits for the end.
func (p *gatewayProc) wait() error {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(30 * time.Second):
		p.t.Fatal("the process does not end")
		return nil
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// site is a configuration file and the backend it leads to.
type site struct {
	t       *testing.T
	file    string
	port    int
	backend string
	state   string
}

func newSite(t *testing.T) *site {
	t.Helper()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	t.Cleanup(b.Close)
	dir := t.TempDir()
	return &site{t: t, file: filepath.Join(dir, "krakend.json"), port: freePort(t), backend: b.URL, state: filepath.Join(dir, "state")}
}

// write makes the file answer /which with "/<name>"; block is put in as it is.
func (s *site) write(name, block string) {
	s.t.Helper()
	raw := fmt.Appendf(nil, `{ "version": 3, "port": %d, "listen_ip": "127.0.0.1", "extra_config": {%s},
  "endpoints": [ { "endpoint": "/which", "output_encoding": "no-op",
    "backend": [ { "host": [%q], "url_pattern": "/%s", "encoding": "no-op" } ] } ] }`, s.port, block, s.backend, name)
	if err := os.WriteFile(s.file, raw, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// lonely is a block whose manager does not answer.
func (s *site) lonely() string {
	return fmt.Sprintf(`"@cluster": {"manager": "127.0.0.1:1", "token_file": "join.token", "gossip": "off", "state_dir": %q}`, s.state)
}

func (s *site) get() (string, error) {
	// A connection of its own: an idle one that is kept holds a drain up.
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/which", s.port))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (s *site) serves(name string) {
	s.t.Helper()
	waitFor(s.t, "/which to answer /"+name, func() bool { got, err := s.get(); return err == nil && got == "/"+name })
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil && !zombie(pid) }

// zombie reports whether a process has ended and waits for its parent only.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

func TestStandalone(t *testing.T) {
	s := newSite(t)
	s.write("one", "")
	p := startProc(t, s.file)
	s.serves("one")
	if _, err := Status(t.Context(), s.file, ""); !errors.Is(err, ErrStandalone) {
		t.Errorf("status: got %v; want ErrStandalone", err)
	}

	s.write("two", "")
	p.cmd.Process.Signal(syscall.SIGHUP)
	s.serves("two")
	if err := os.WriteFile(s.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Signal(syscall.SIGHUP)
	s.serves("two")

	if err := Run(t.Context(), Options{ConfigFile: s.file}); err == nil {
		t.Error("a broken file: got no error")
	}
	s.write("three", "")
	if err := Run(t.Context(), Options{ConfigFile: s.file}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d", s.port)) {
		t.Errorf("a port in use: got %v; want that it names the port", err)
	}

	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.wait(); err != nil {
		t.Errorf("end: got %v; want a clean one", err)
	}
}

// TestNextAgentTakesOver kills the agent alone, under load: the worker serves
// on, and the next agent takes over its socket and replaces it.
func TestNextAgentTakesOver(t *testing.T) {
	s := newSite(t)
	s.write("one", s.lonely())
	first := startProc(t, s.file)
	s.serves("one")
	var st agent.NodeStatus
	waitFor(t, "the status", func() bool {
		var err error
		st, err = Status(t.Context(), s.file, "")
		return err == nil && st.Worker.Serving
	})

	done := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent, failed := 0, []error(nil)
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := s.get()
				mu.Lock()
				if sent++; err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	if err := syscall.Kill(first.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.ended
	if !alive(st.Worker.PID) {
		t.Error("the worker ended with its agent")
	}
	s.serves("one")
	s.write("two", s.lonely())
	second := startProc(t, s.file)
	s.serves("two")
	waitFor(t, "the first worker to end", func() bool { return !alive(st.Worker.PID) })
	close(done)
	wg.Wait()
	t.Logf("%d requests over the death of an agent", sent)
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", len(failed), sent, failed[0])
	}
	second.cmd.Process.Signal(syscall.SIGTERM)
	if err := second.wait(); err != nil {
		t.Errorf("end: got %v; want a clean one", err)
	}
}

func TestDieWithParent(t *testing.T) {
	s := newSite(t)
	s.write("one", s.lonely())
	p := startProc(t, s.file, envDie+"=1")
	s.serves("one")
	var st agent.NodeStatus
	waitFor(t, "the status", func() bool {
		var err error
		st, err = Status(t.Context(), s.file, "")
		return err == nil && st.Worker.PID != 0
	})
	if err := syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the worker to end as well", func() bool { return !alive(st.Worker.PID) })
}

// TestSignalToTheGroup is Ctrl-C at a terminal, and what a service manager
// does: all processes of the node get the signal, and the agent still ends the
// worker in order.
func TestSignalToTheGroup(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			s := newSite(t)
			s.write("one", s.lonely())
			p := startProc(t, s.file)
			s.serves("one")
			if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
			if err := p.wait(); err != nil {
				t.Errorf("end: got %v; want a clean one", err)
			}
			if err := syscall.Kill(-p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the process group after the end: got %v; want that it is empty", err)
			}
		})
	}
}

func TestTwoAgentsOneFolder(t *testing.T) {
	s := newSite(t)
	s.write("one", s.lonely())
	startProc(t, s.file)
	s.serves("one")
	s.port = freePort(t)
	s.write("two", s.lonely())
	if err := Run(t.Context(), Options{ConfigFile: s.file}); !errors.Is(err, agent.ErrInUse) {
		t.Errorf("second agent: got %v; want ErrInUse", err)
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t)
	f := func(what, raw string, want ...string) {
		t.Helper()
		if err := os.WriteFile(s.file, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		faults, _, err := Check(t.Context(), s.file)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := fmt.Sprint(faults)
		if len(want) == 0 && len(faults) > 0 {
			t.Errorf("%s: got %s; want no fault", what, got)
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: got %s; want %q in it", what, got, w)
			}
		}
	}
	s.write("one", s.lonely())
	raw, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	f("good", string(raw))
	f("no JSON", "{", "parse")
	f("two faults", strings.Replace(strings.Replace(string(raw), `"manager"`, `"manger"`, 1), `"/which"`, `"which"`, 1), "manger")
	if _, _, err := Check(t.Context(), s.file+".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}
