package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
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
