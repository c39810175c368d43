package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a process may drain before its group is killed.
const stopTimeout = 20 * time.Second

// processes starts children, each with a process group and a log of its own,
// and ends them in the reverse order.
//
// The kernel kills a child when the thread that started it ends
// (PR_SET_PDEATHSIG speaks of threads), so one goroutine locked to its thread
// starts them all and lives as long as the program: a demo that is killed
// leaves nothing running.
type processes struct {
	logs  string
	spawn chan func()

	mu   sync.Mutex // guards list
	list []*process
}

type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when the process has ended
	err  error         // valid after done
}

func newProcesses(logs string) *processes {
	p := &processes{logs: logs, spawn: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the program
		for f := range p.spawn {
			f()
		}
		select {}
	}()
	return p
}

func (p *processes) logFile(name string) string { return filepath.Join(p.logs, name+".log") }

// start runs bin with args; its output goes to the log file of that name.
func (p *processes) start(name, bin string, args ...string) error {
	log, err := os.OpenFile(p.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	ownGroup(cmd)
	endWithParent(cmd.SysProcAttr)
	errc := make(chan error)
	p.spawn <- func() { errc <- cmd.Start() }
	if err := <-errc; err != nil {
		log.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("start %s: %s is not there: `make build` puts the binaries into bin/", name, bin)
		}
		return fmt.Errorf("start %s: %w", name, err)
	}
	pr := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		pr.err = cmd.Wait()
		log.Close()
		close(pr.done)
	}()
	p.mu.Lock()
	p.list = append(p.list, pr)
	p.mu.Unlock()
	return nil
}

// ended returns a channel that is closed when the named process has ended, or
// nil when there is none.
func (p *processes) ended(name string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.list {
		if pr.name == name {
			return pr.done
		}
	}
	return nil
}

// manager delivers how the manager ended, when it does.
func (p *processes) manager() <-chan error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan error, 1)
	for _, pr := range p.list {
		if pr.name == "manager" {
			go func() { <-pr.done; c <- pr.err }()
		}
	}
	return c
}

// stop ends all nodes at once, then the manager, each with SIGTERM first.
func (p *processes) stop() error {
	p.mu.Lock()
	list := slices.Clone(p.list)
	p.mu.Unlock()
	var nodes, managers []*process
	for _, pr := range list {
		if pr.name == "manager" {
			managers = append(managers, pr)
		} else {
			nodes = append(nodes, pr)
		}
	}
	return errors.Join(stopAll(nodes), stopAll(managers))
}

func stopAll(list []*process) error {
	for _, pr := range list {
		// The parent of the group drains its own children.
		_ = pr.cmd.Process.Signal(syscall.SIGTERM)
	}
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	var errs []error
	for _, pr := range list {
		select {
		case <-pr.done:
		case <-deadline.C:
			deadline.Reset(0) // the others have had their time too
			errs = append(errs, fmt.Errorf("%s did not stop within %v and was killed", pr.name, stopTimeout))
		}
		// Whatever is left of the group goes too.
		killGroup(pr.cmd.Process)
		<-pr.done
	}
	return errors.Join(errs...)
}
