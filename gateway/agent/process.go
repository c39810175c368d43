package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent/relay"
	"github.com/binnacle-project/binnacle/gateway/control"
)

// conductor is how a process that serves is directed. A worker takes calls on
// its control socket; another program takes what it has: files and signals.
type conductor interface {
	// apply brings a configuration to serve. Errors: a *control.Error with
	// CodeRestart when only a new process can run it; ErrClosed when the process
	// has ended meanwhile; anything else leaves what ran before running.
	apply(ctx context.Context, ref api.RevisionRef, effective []byte) error
	// probe fails unless what runs answers.
	probe(ctx context.Context) error
	drain(ctx context.Context, on bool) error
	// quiet returns for how long nobody has sent a request, since it was told to
	// drain.
	quiet(ctx context.Context) (time.Duration, error)
	setInterval(ctx context.Context, d time.Duration) error
	// setLimit holds it to a rate, in requests per second; nil is none.
	setLimit(ctx context.Context, rate *float64) error
	// askToStop begins an orderly end that takes at most limit.
	askToStop(ctx context.Context, limit time.Duration) error
	// release ends the directing, not the process.
	release()
}

// workerConductor directs a worker.
type workerConductor struct{ client *control.Client }

func (c workerConductor) apply(ctx context.Context, ref api.RevisionRef, effective []byte) error {
	return c.client.Call(ctx, control.MethodApply, control.Apply{Ref: ref, Config: effective}, nil)
}

func (c workerConductor) probe(ctx context.Context) error {
	return c.client.Call(ctx, control.MethodProbe, nil, nil)
}

func (c workerConductor) drain(ctx context.Context, on bool) error {
	return c.client.Call(ctx, control.MethodDrain, control.Drain{On: on}, nil)
}

func (c workerConductor) quiet(ctx context.Context) (time.Duration, error) {
	var s control.WorkerStatus
	err := c.client.Call(ctx, control.MethodStatus, nil, &s)
	return time.Duration(s.QuietSeconds * float64(time.Second)), err
}

func (c workerConductor) setInterval(ctx context.Context, d time.Duration) error {
	return c.client.Call(ctx, control.MethodInterval, control.Interval{Seconds: d.Seconds()}, nil)
}

func (c workerConductor) setLimit(ctx context.Context, rate *float64) error {
	return c.client.Call(ctx, control.MethodLimit, control.Limit{Rate: rate}, nil)
}

func (c workerConductor) askToStop(ctx context.Context, limit time.Duration) error {
	return c.client.Call(ctx, control.MethodStop, control.Stop{Seconds: limit.Seconds()}, nil)
}

func (c workerConductor) release() { c.client.Close() }

// process is one worker, or another program in its place: one that this agent
// started, or one that an agent before it left behind.
type process struct {
	conductor
	instance string
	pid      int
	group    bool        // it leads a process group of its own
	cmd      *exec.Cmd   // nil for one left behind
	relay    *relay.Port // nil for one left behind that sends elsewhere
	started  time.Time

	// exited is closed when it has ended; cause is then set.
	exited chan struct{}
	cause  error
}

// launcher starts workers.
type launcher struct {
	state         *stateDir
	relay         *relay.Relay
	log           *slog.Logger
	command       []string
	dieWithParent bool
	drainDelay    time.Duration
	logFormat     string
	logLevel      string
}

const (
	// readyTime is how long a new process may take to answer on its socket.
	readyTime = 15 * time.Second
	// maxCrashText is how much of a panic's text is reported.
	maxCrashText = 2 << 10
)

// launch starts a worker on copies of the listeners and returns once it
// answers.
func (l *launcher) launch(ctx context.Context, listeners []net.Listener, interval time.Duration) (_ *process, err error) {
	p := &process{instance: strings.ToLower(rand.Text()[:12]), exited: make(chan struct{}), started: time.Now()}
	sock := "worker-" + p.instance + ".sock"
	crash := l.state.path("worker-" + p.instance + ".crash")
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close() // the child has its own
		}
		if err != nil && p.cmd == nil {
			os.Remove(crash)
			os.Remove(l.state.path(sock))
			if p.relay != nil {
				p.relay.Close()
			}
		}
	}()

	if p.relay, err = l.relay.Open(relay.AnyPort, nil); err != nil {
		return nil, err
	}
	ctl, err := control.Listen(l.state.dir, sock)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	names := []string{control.FileControl, control.FileCrash}
	cf, err := control.File(ctl)
	if err != nil {
		return nil, err
	}
	files = append(files, cf)
	crashFile, err := os.OpenFile(crash, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	files = append(files, crashFile)
	for _, ln := range listeners {
		f, err := control.File(ln)
		if err != nil {
			return nil, err
		}
		files, names = append(files, f), append(names, control.FileTraffic)
	}
	env, err := json.Marshal(control.Launch{
		Files: names, Socket: l.state.path(sock), Relay: p.relay.URL, Instance: p.instance,
		IntervalSeconds: interval.Seconds(), DieWithParent: l.dieWithParent, DrainDelaySeconds: l.drainDelay.Seconds(),
		LogFormat: l.logFormat, LogLevel: l.logLevel,
	})
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	cmd := exec.Command(l.command[0], l.command[1:]...)
	cmd.Env = append(os.Environ(), control.WorkerEnv+"="+string(env))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = files
	if err := l.start(p, cmd, crash, sock); err != nil {
		return nil, fmt.Errorf("start a worker (%s): %w", l.command[0], err)
	}

	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	client, err := control.Dial(ctx, l.state.dir, sock)
	if err == nil {
		p.conductor = workerConductor{client}
		var st control.WorkerStatus
		if err = client.Call(ctx, control.MethodStatus, nil, &st); err == nil {
			l.log.Info("worker started", "worker_pid", p.pid, "instance", p.instance)
			return p, nil
		}
	}
	p.kill()
	<-p.exited
	return nil, fmt.Errorf("start a worker (%s): it does not answer on its control socket: %w", l.command[0], errors.Join(err, p.cause))
}

// start runs cmd and watches for its end.
func (l *launcher) start(p *process, cmd *exec.Cmd, crash, sock string) error {
	return p.start(cmd, l.dieWithParent, func(err error) error {
		cause := exitCause(err, readCrash(crash))
		os.Remove(crash)
		os.Remove(l.state.path(sock))
		p.relay.Close()
		return cause
	})
}

// start runs cmd. At its end, ended makes the cause of what Wait said and puts
// away what belonged to the process.
func (p *process) start(cmd *exec.Cmd, dieWithParent bool, ended func(err error) (cause error)) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if dieWithParent {
		endWithParent(cmd.SysProcAttr)
	}
	p.group = cmd.SysProcAttr.Setpgid
	started := make(chan error, 1)
	go func() {
		if dieWithParent {
			// The signal comes when the starting thread ends, not the process:
			// this thread stays for as long as the child does.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		err := cmd.Start()
		if err == nil {
			p.cmd, p.pid = cmd, cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.cause = ended(cmd.Wait())
		close(p.exited)
	}()
	return <-started
}

// exitCause says why a process ended; nil for a clean end.
func exitCause(err error, crash string) error {
	if err == nil {
		return nil
	}
	if crash != "" {
		return fmt.Errorf("worker: %w: %s", err, crash)
	}
	return fmt.Errorf("worker: %w", err)
}

// readCrash returns the beginning of what the runtime wrote at a panic, empty
// if there was none. The beginning names the panic and the goroutine at fault.
func readCrash(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCrashText))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(bytes.ToValidUTF8(b, []byte("?"))))
}

// stop lets the worker finish what is in flight, for at most limit, and ends
// it by force if it does not end by itself. It returns when it has ended.
func (p *process) stop(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	err := p.askToStop(ctx, limit)
	cancel()
	if err != nil && !errors.Is(err, control.ErrClosed) {
		err = fmt.Errorf("ask worker %d to stop: %w", p.pid, err)
	} else {
		err = nil
	}
	// Draining takes at most limit, the last export some seconds more.
	t := time.NewTimer(limit + 6*time.Second)
	defer t.Stop()
	select {
	case <-p.exited:
		return nil
	case <-t.C:
	}
	p.kill()
	if p.cmd != nil {
		<-p.exited
	}
	return errors.Join(err, fmt.Errorf("worker %d did not end within %v and was killed", p.pid, limit+6*time.Second))
}

// kill ends the process at once, and all of its group if it leads one.
func (p *process) kill() {
	switch {
	case p.group && p.pid > 1:
		syscall.Kill(-p.pid, syscall.SIGKILL)
	case p.cmd != nil:
		p.cmd.Process.Kill()
	case p.pid > 0:
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

// clear ends what a process that led a group has left behind in it, such as
// children that hold a port which its successor needs.
func (p *process) clear() {
	if p.group && p.pid > 1 {
		syscall.Kill(-p.pid, syscall.SIGKILL) // mostly ESRCH: there is nothing
	}
}

// gone reports whether the process has ended.
func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}
