package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle/gateway/agent/relay"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// listen opens the socket for traffic that the settings ask for. Backlog and
// all stay with this process for as long as it lives.
func listen(s engine.ServerSettings, file string) (net.Listener, error) {
	ln, err := net.Listen("tcp", s.Addr())
	if err == nil {
		return ln, nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d (\"port\" in %s) is in use: %w", s.Port, file, err)
	}
	return nil, fmt.Errorf("listen on %s (\"listen_ip\" and \"port\" in %s): %w", s.Addr(), file, err)
}

// leftBehind finds the workers that an agent before this one left in the state
// folder, still serving, and takes their telemetry again where they send it: their
// counts are cumulative, so that nothing of the time without an agent is missing.
// Sockets of dead ones are removed.
func leftBehind(ctx context.Context, s *stateDir, r *relay.Relay, log *slog.Logger) []*process {
	paths, err := filepath.Glob(filepath.Join(s.dir, "worker-*.sock"))
	if err != nil {
		return nil
	}
	var found []*process
	for _, path := range paths {
		name := filepath.Base(path)
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		c, err := control.Dial(ctx, s.dir, name)
		if err != nil {
			cancel()
			os.Remove(path) // nobody listens
			os.Remove(strings.TrimSuffix(path, ".sock") + ".crash")
			continue
		}
		var st control.WorkerStatus
		err = c.Call(ctx, control.MethodStatus, nil, &st)
		cancel()
		if err != nil {
			log.Warn("a worker of an earlier agent does not answer; it is left alone", "socket", path, "err", err)
			c.Close()
			continue
		}
		p := &process{instance: strings.TrimSuffix(strings.TrimPrefix(name, "worker-"), ".sock"),
			pid: st.PID, conductor: workerConductor{c}, exited: make(chan struct{}), started: st.Started}
		if addr, ok := strings.CutPrefix(st.Relay, "http://"); ok {
			if p.relay, err = r.Open(addr, nil); err != nil {
				log.Warn("the telemetry of a worker of an earlier agent is lost, as another program has its port", "worker_pid", p.pid, "err", err)
			}
		}
		go func() {
			<-c.Gone()
			if p.relay != nil {
				p.relay.Close()
			}
			close(p.exited)
		}()
		found = append(found, p)
	}
	return found
}

// adopt takes copies of the listening sockets of workers that were left behind,
// so that none of the connections waiting in them is lost.
func adopt(ctx context.Context, p *process) ([]net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, ok := p.conductor.(workerConductor)
	if !ok {
		return nil, nil
	}
	files, err := c.client.CallFiles(ctx, control.MethodAdopt, nil, nil)
	var lns []net.Listener
	for _, f := range files {
		ln, lerr := net.FileListener(f)
		f.Close()
		if lerr != nil {
			err = errors.Join(err, lerr)
			continue
		}
		lns = append(lns, ln)
	}
	if err != nil {
		for _, ln := range lns {
			ln.Close()
		}
		return nil, fmt.Errorf("take over the sockets of worker %d: %w", p.pid, err)
	}
	return lns, nil
}
