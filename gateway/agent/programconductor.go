package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
)

// programConductor directs a program.
type programConductor struct {
	pr       *program
	p        *process
	revision atomic.Uint64
	loaded   []byte // the configuration it runs; nil if that is not known
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
