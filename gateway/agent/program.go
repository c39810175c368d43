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
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// Program is any gateway that the agent runs in its own worker's place. What it
// cannot be asked for over a control socket is done with files, commands and
// signals; what those cannot do (two at a time on one socket, a drain) is left
// out.
type Program struct {
	// Command starts it. It must stay in the foreground, and listens itself.
	Command []string
	// Check is a shell command that fails for a file that the program would not
	// run. {} stands for the file to check, which lies beside ConfigFile; it is
	// also in $BINNACLE_CONFIG_FILE. Empty checks nothing.
	Check string
	// Reload makes the program read ConfigFile again without an interruption: the
	// name of a signal (HUP), or a shell command with $BINNACLE_PID and
	// $BINNACLE_CONFIG_FILE. Empty restarts it.
	Reload string
	// Health is where it answers while it works: http://host:port/path (any
	// status below 400) or tcp://host:port. Empty takes a running process for a
	// working one.
	Health string
	// StopSignal asks it to end in order; 0 is SIGTERM.
	StopSignal syscall.Signal
	// Settle is how long it may take to answer at Health after a start or a
	// reload; 0 is 15 seconds.
	Settle time.Duration
}

const (
	// aliveFor is how long a program must live to count as started or reloaded.
	aliveFor = time.Second
	// maxUnhealthy probes without an answer in a row, one a second, end it.
	maxUnhealthy = 10
	// maxCheckText is how much of a command's output is reported.
	maxCheckText = 4 << 10
	// maxProgramConfig bounds a configuration, as the manager does.
	maxProgramConfig = 8 << 20

	fileOwnConfig = "own.conf"
	fileWritten   = "written.json"
	fileProgram   = "program.json"
)

func (o *Program) validate() error {
	if o.StopSignal == 0 {
		o.StopSignal = syscall.SIGTERM
	}
	if o.Settle <= 0 {
		o.Settle = 15 * time.Second
	}
	var errs []error
	if len(o.Command) == 0 {
		errs = append(errs, errors.New("supervise: name the command to run after --"))
	}
	if o.Check != "" && !strings.Contains(o.Check, "{}") && !strings.Contains(o.Check, "BINNACLE_CONFIG_FILE") {
		errs = append(errs, fmt.Errorf(`check %q: write {} where the file to check belongs, as in "nginx -t -c {}"`, o.Check))
	}
	if o.Health != "" {
		if u, err := url.Parse(o.Health); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && (u.Scheme != "tcp" || u.Port() == "") {
			errs = append(errs, fmt.Errorf("health %q: want http://host:port/path or tcp://host:port", o.Health))
		}
	}
	return errors.Join(errs...)
}

// port is where the program listens, as far as the health address says it.
func (o *Program) port() int {
	u, err := url.Parse(o.Health)
	if err != nil || u.Host == "" {
		return 0
	}
	if n, err := strconv.Atoi(u.Port()); err == nil {
		return n
	}
	return map[string]int{"http": 80, "https": 443}[u.Scheme]
}

// program is the supervised program of one agent. The helm's goroutine owns it.
type program struct {
	Program
	a    *Agent
	log  *slog.Logger
	file string
	// written are the hashes of what we wrote to file, newest first: any other
	// content is a change by hand.
	written []string
}

// newProgram returns the program and the node's own file: what stood in the
// file before an agent wrote to it, or what was put there by hand since.
func newProgram(a *Agent) (*program, []byte, error) {
	pr := &program{Program: *a.opts.Program, a: a, log: a.log.With("part", "program"), file: a.opts.ConfigFile}
	if err := a.state.loadJSON(fileWritten, &pr.written); err != nil && !errors.Is(err, os.ErrNotExist) {
		pr.log.Warn("what was written to the configuration file before is not known", "err", err)
	}
	b, changed, err := pr.changedByHand()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	if err == nil && changed {
		return pr, b, a.state.saveTwice(fileOwnConfig, b)
	}
	own, oerr := a.state.load(fileOwnConfig)
	if oerr != nil {
		return nil, nil, fmt.Errorf("the node's own configuration: %w; put one at %s", errors.Join(err, oerr), pr.file)
	}
	return pr, own, nil
}

// changedByHand returns the file's content and whether somebody else wrote it.
func (pr *program) changedByHand() (b []byte, changed bool, err error) {
	f, err := os.Open(pr.file)
	if err != nil {
		return nil, false, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, maxProgramConfig+1)); err != nil {
		return nil, false, fmt.Errorf("read the configuration: %w", err)
	}
	if len(b) > maxProgramConfig {
		return nil, false, fmt.Errorf("read the configuration %s: it has more than %d bytes", pr.file, maxProgramConfig)
	}
	hash := hashOf(b)
	for _, w := range pr.written {
		if w == hash {
			return b, false, nil
		}
	}
	return b, true, nil
}

// place makes b the program's configuration file, atomically, with the mode and
// the owner of the one before.
func (pr *program) place(b []byte) error {
	hash := hashOf(b)
	if len(pr.written) == 0 || pr.written[0] != hash {
		// Known as ours before it is there; the one before is there still.
		pr.written = append([]string{hash}, pr.written[:min(len(pr.written), 3)]...)
		if err := pr.a.state.saveJSON(fileWritten, pr.written); err != nil {
			return err
		}
	}
	if err := pr.writeBeside(pr.file+".new", b); err != nil {
		return err
	}
	if err := atomicfile.Rename(pr.file+".new", pr.file); err != nil {
		return fmt.Errorf("put the configuration in place (its folder must be writable; mount the folder, not the file): %w", err)
	}
	return nil
}

// writeBeside writes b to path like the program's configuration file.
func (pr *program) writeBeside(path string, b []byte) error {
	if err := atomicfile.WriteSynced(path, b); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	fi, err := os.Stat(pr.file)
	if err != nil {
		return nil // the first one: for us alone
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		os.Chown(path, int(st.Uid), int(st.Gid)) //nolint:errcheck // only root can; others own it anyway
	}
	if err := os.Chmod(path, fi.Mode().Perm()); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// check runs the check command on b.
func (pr *program) check(ctx context.Context, b []byte) error {
	if pr.Check == "" {
		return nil
	}
	candidate := filepath.Join(filepath.Dir(pr.file), "."+filepath.Base(pr.file)+".candidate")
	if err := pr.writeBeside(candidate, b); err != nil {
		return err
	}
	defer os.Remove(candidate)
	cmd := strings.ReplaceAll(pr.Check, "{}", shellQuote(candidate))
	if err := pr.shell(ctx, cmd, "BINNACLE_CONFIG_FILE="+candidate); err != nil {
		return fmt.Errorf("the check refuses this configuration: %w", err)
	}
	return nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// shell runs a command; the error has the end of its output.
func (pr *program) shell(ctx context.Context, command string, env ...string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if len(out) > maxCheckText {
		out = out[len(out)-maxCheckText:]
	}
	text := string(bytes.TrimSpace(bytes.ToValidUTF8(out, []byte("?"))))
	if text == "" {
		return fmt.Errorf("%s: %w", command, err)
	}
	return fmt.Errorf("%s: %w: %s", command, err, text)
}

// savedProgram lets the next agent find a program that outlived this one.
type savedProgram struct {
	PID      int               `json:"pid"`
	Start    string            `json:"start"` // as the kernel counts it: pids come again
	Instance string            `json:"instance"`
	Relay    string            `json:"relay"`
	Revision binnacle.Revision `json:"revision"`
	SHA256   string            `json:"sha256"` // of the configuration it runs
}

// programConductor directs a program.
type programConductor struct {
	pr       *program
	p        *process
	revision atomic.Uint64
	loaded   []byte // the configuration it runs; nil if that is not known
}

// start runs the program on what stands in the file.
func (pr *program) start(ctx context.Context, ref api.RevisionRef, effective []byte) (*process, error) {
	p := &process{instance: strings.ToLower(rand.Text()[:12]), exited: make(chan struct{}), started: time.Now()}
	c := &programConductor{pr: pr, p: p}
	p.conductor = c
	var err error
	if p.relay, err = pr.a.relay.open(anyPort, c.current); err != nil {
		return nil, err
	}
	cmd := exec.Command(pr.Command[0], pr.Command[1:]...)
	cmd.Env = append(pr.environment(p), "BINNACLE_CONFIG_FILE="+pr.file)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// Signals of a terminal must not take it away under its agent.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.start(cmd, pr.a.opts.DieWithParent, func(err error) error {
		p.relay.close()
		p.clear()
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", filepath.Base(pr.Command[0]), err)
	}); err != nil {
		p.relay.close()
		return nil, fmt.Errorf("start %s: %w", pr.Command[0], err)
	}
	c.took(ref, effective)
	if err := c.settle(ctx); err != nil {
		p.kill()
		<-p.exited
		return nil, err
	}
	pr.log.Info("program started", "command", pr.Command[0], "program_pid", p.pid, "instance", p.instance)
	return p, nil
}

// environment lets the program's telemetry find the agent, and names it.
// What the operator has set in the agent's environment is kept, but for the
// way to the agent and the name of the process.
func (pr *program) environment(p *process) []string {
	var env []string
	attrs, named := "", false
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "OTEL_RESOURCE_ATTRIBUTES":
			attrs = v
			named = named || strings.Contains(","+v, ",service.name=")
			continue
		case "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "NOTIFY_SOCKET":
			continue
		case "OTEL_SERVICE_NAME":
			named = true
		}
		env = append(env, kv)
	}
	add := []string{"service.instance.id=" + p.instance}
	if host, err := os.Hostname(); err == nil {
		add = append(add, "host.name="+url.PathEscape(host))
	}
	if attrs != "" {
		add = append([]string{attrs}, add...)
	}
	if !named {
		env = append(env, "OTEL_SERVICE_NAME="+filepath.Base(pr.Command[0]))
	}
	return append(env,
		"OTEL_EXPORTER_OTLP_ENDPOINT="+p.relay.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_RESOURCE_ATTRIBUTES="+strings.Join(add, ","))
}

// leftBehind finds the program that an agent before this one started, nil if
// there is none.
func (pr *program) leftBehind() *process {
	var s savedProgram
	if err := pr.a.state.loadJSON(fileProgram, &s); err != nil {
		return nil
	}
	if start, err := startTime(s.PID); err != nil || start != s.Start {
		return nil
	}
	p := &process{instance: s.Instance, pid: s.PID, group: true, exited: make(chan struct{}), started: time.Now()}
	c := &programConductor{pr: pr, p: p}
	c.revision.Store(uint64(s.Revision))
	if b, _, err := pr.changedByHand(); err == nil && hashOf(b) == s.SHA256 {
		c.loaded = b
	}
	p.conductor = c
	relay, err := pr.a.relay.open(s.Relay, c.current)
	if err != nil {
		pr.log.Warn("the telemetry of a program that outlived its agent is lost until it is restarted", "program_pid", s.PID, "err", err)
	}
	p.relay = relay
	pr.log.Info("took over the program of an earlier agent", "program_pid", s.PID)
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if start, err := startTime(s.PID); err != nil || start != s.Start {
				break
			}
		}
		p.cause = errors.New("it ended; how, only the agent that started it could have known")
		if relay != nil {
			relay.close()
		}
		p.clear()
		close(p.exited)
	}()
	return p
}

// startTime tells a process from a later one with its pid. A process that has
// ended and only waits for its parent has none.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

func (c *programConductor) current() binnacle.Revision {
	return binnacle.Revision(c.revision.Load())
}

// apply puts the configuration in place and makes the program read it. When it
// then does not work, the configuration before is put back.
func (c *programConductor) apply(ctx context.Context, ref api.RevisionRef, effective []byte) error {
	before := c.loaded
	if before != nil && bytes.Equal(before, effective) {
		if err := c.pr.place(effective); err != nil { // somebody may have touched it
			return err
		}
		c.took(ref, effective)
		return c.settle(ctx)
	}
	if c.pr.Reload == "" {
		return &control.Error{Method: control.MethodApply, Code: control.CodeRestart, Message: "there is no reload command"}
	}
	if err := c.pr.place(effective); err != nil {
		return err
	}
	err := c.reload(ctx)
	if err == nil {
		c.took(ref, effective)
		return nil
	}
	if before == nil {
		return err
	}
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.pr.Settle)
	defer cancel()
	if perr := c.pr.place(before); perr != nil {
		return errors.Join(err, perr)
	}
	if !c.p.gone() {
		if rerr := c.reload(rctx); rerr != nil {
			return errors.Join(err, fmt.Errorf("going back: %w", rerr))
		}
	}
	return err
}

// took notes what the program runs, also for the next agent.
func (c *programConductor) took(ref api.RevisionRef, effective []byte) {
	c.loaded = effective
	c.revision.Store(uint64(ref.Number))
	start, err := startTime(c.p.pid)
	if err != nil {
		return // it has ended, which is told elsewhere
	}
	saved := savedProgram{PID: c.p.pid, Start: start, Instance: c.p.instance, Revision: ref.Number, SHA256: hashOf(effective)}
	if c.p.relay != nil {
		saved.Relay = strings.TrimPrefix(c.p.relay.URL, "http://")
	}
	if err := c.pr.a.state.saveJSON(fileProgram, saved); err != nil {
		c.pr.log.Warn("should this agent die, the next one will not know the program that runs", "err", err)
	}
}

// reload makes the program read its file and waits until it works.
func (c *programConductor) reload(ctx context.Context) error {
	if sig, ok := SignalNamed(c.pr.Reload); ok {
		if err := syscall.Kill(c.p.pid, sig); err != nil {
			return fmt.Errorf("reload: send %s to %d: %w", c.pr.Reload, c.p.pid, err)
		}
	} else if err := c.pr.shell(ctx, c.pr.Reload, "BINNACLE_CONFIG_FILE="+c.pr.file, "BINNACLE_PID="+strconv.Itoa(c.p.pid)); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return c.settle(ctx)
}

// settle waits until the program works: it lives for a second, and answers at
// its health address.
func (c *programConductor) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.pr.Settle)
	defer cancel()
	alive := time.NewTimer(aliveFor)
	defer alive.Stop()
	select {
	case <-alive.C:
	case <-c.p.exited:
		return c.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		err := c.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.p.exited:
			return c.ended()
		case <-ctx.Done():
			return fmt.Errorf("it does not answer at its health address within %v: %w", c.pr.Settle, err)
		}
	}
}

func (c *programConductor) ended() error {
	if c.p.cause != nil {
		return fmt.Errorf("it ended at once: %w", c.p.cause)
	}
	return errors.New("it ended at once, without an error; it must stay in the foreground")
}

// healthClient keeps no connection: a program that is to end shall not wait.
var healthClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c *programConductor) probe(ctx context.Context) error {
	if c.p.gone() {
		return c.ended()
	}
	if c.pr.Health == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if addr, ok := strings.CutPrefix(c.pr.Health, "tcp://"); ok {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.pr.Health, nil)
	if err != nil {
		return err
	}
	resp, err := healthClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", c.pr.Health, resp.Status)
	}
	return nil
}

// drain does nothing: the node is not ready, so nobody is sent here; a stock
// program has no word for more.
func (c *programConductor) drain(context.Context, bool) error { return nil }

// quiet knows nothing: a program's requests do not pass through us.
func (c *programConductor) quiet(context.Context) (time.Duration, error) { return 0, nil }

// setInterval does nothing: a program exports when it wants to.
func (c *programConductor) setInterval(context.Context, time.Duration) error { return nil }

// setLimit does nothing: another program's requests do not pass through us.
func (c *programConductor) setLimit(context.Context, *float64) error { return nil }

func (c *programConductor) askToStop(context.Context, time.Duration) error {
	if err := syscall.Kill(c.p.pid, c.pr.StopSignal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func (c *programConductor) release() {}

// SignalNamed knows a signal by its name, with or without SIG.
func SignalNamed(s string) (syscall.Signal, bool) {
	sig, ok := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM,
		"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
	}[strings.TrimPrefix(strings.ToUpper(s), "SIG")]
	return sig, ok
}

// textReference matches a reference in a text of any format.
var textReference = regexp.MustCompile(`\$?\$\{(?:env|file):[^{}"\\\n]*\}`)

// resolveText is engine.Resolve for a text that is no JSON.
func resolveText(raw []byte, allow engine.AllowList) ([]byte, error) {
	var errs []error
	out := textReference.ReplaceAllFunc(raw, func(ref []byte) []byte {
		doc, err := json.Marshal(map[string]string{"v": string(ref)})
		if err == nil {
			doc, err = engine.Resolve(doc, allow)
		}
		var v struct {
			V string `json:"v"`
		}
		if err == nil {
			err = json.Unmarshal(doc, &v)
		}
		if err != nil {
			errs = append(errs, err)
			return ref
		}
		return []byte(v.V)
	})
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("fill in the node's own values: %w", err)
	}
	return out, nil
}
