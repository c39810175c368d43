package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent/relay"
)

// savedProgram lets the next agent find a program that outlived this one.
type savedProgram struct {
	PID      int               `json:"pid"`
	Start    string            `json:"start"` // as the kernel counts it: pids come again
	Instance string            `json:"instance"`
	Relay    string            `json:"relay"`
	Revision binnacle.Revision `json:"revision"`
	SHA256   string            `json:"sha256"` // of the configuration it runs
}

// start runs the program on what stands in the file.
func (pr *program) start(ctx context.Context, ref api.RevisionRef, effective []byte) (*process, error) {
	p := &process{instance: strings.ToLower(rand.Text()[:12]), exited: make(chan struct{}), started: time.Now()}
	c := &programConductor{pr: pr, p: p}
	p.conductor = c
	var err error
	if p.relay, err = pr.a.relay.Open(relay.AnyPort, c.current); err != nil {
		return nil, err
	}
	cmd := exec.Command(pr.Command[0], pr.Command[1:]...)
	cmd.Env = append(pr.environment(p), "BINNACLE_CONFIG_FILE="+pr.file)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// Signals of a terminal must not take it away under its agent.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.start(cmd, pr.a.opts.DieWithParent, func(err error) error {
		p.relay.Close()
		p.clear()
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", filepath.Base(pr.Command[0]), err)
	}); err != nil {
		p.relay.Close()
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
		if err != nil {
			pr.clearGroup(s.PID)
		}
		return nil
	}
	p := &process{instance: s.Instance, pid: s.PID, group: true, exited: make(chan struct{}), started: time.Now()}
	c := &programConductor{pr: pr, p: p}
	c.revision.Store(uint64(s.Revision))
	if b, _, err := pr.changedByHand(); err == nil && hashOf(b) == s.SHA256 {
		c.loaded = b
	}
	p.conductor = c
	port, err := pr.a.relay.Open(s.Relay, c.current)
	if err != nil {
		pr.log.Warn("the telemetry of a program that outlived its agent is lost until it is restarted", "program_pid", s.PID, "err", err)
	}
	p.relay = port
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
		if port != nil {
			port.Close()
		}
		p.clear()
		close(p.exited)
	}()
	return p
}

// clearGroup ends what a program that died along with its agent has left in its
// group: children that hold the port which the next one needs. Only those that run
// the program's own file: the group's number may be somebody else's by now.
func (pr *program) clearGroup(group int) {
	path, err := exec.LookPath(pr.Command[0])
	if err != nil {
		return
	}
	own, err := os.Stat(path)
	if err != nil {
		return
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if g, err := syscall.Getpgid(pid); err != nil || g != group {
			continue
		}
		exe, err := os.Stat(filepath.Join(dir, "exe"))
		if err != nil || !os.SameFile(own, exe) {
			continue
		}
		pr.log.Warn("ending a process that the program of an earlier agent has left behind", "process_pid", pid)
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it has ended, then
	}
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
