package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// boot brings the first worker to serve: what served last, else what served
// before it, else the node's own file, so that a node starts without a
// manager and from a disk that lost files.
func (h *helm) boot(ctx context.Context) error {
	var orphans []*process
	if h.program != nil {
		h.worker = h.program.leftBehind()
	} else {
		orphans = leftBehind(ctx, h.a.state, h.a.relay, h.log)
		if err := h.openListener(ctx, orphans); err != nil {
			return err
		}
	}
	var errs []error
	for _, ref := range h.ledger.bootOrder() {
		ref, raw, err := h.bytesOf(ref)
		if err == nil {
			err = h.bring(ctx, ref, raw, false)
		}
		if err == nil {
			h.log.Info("serving", "revision", ref.Number, "sha256", ref.SHA256, "address", h.a.advertised())
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.log.Error("this configuration cannot be started with", "revision", ref.Number, "err", err)
		errs = append(errs, err)
	}
	if h.run == nil {
		return fmt.Errorf("no configuration can be started with: %w", errors.Join(errs...))
	}
	for _, p := range orphans {
		h.log.Info("a worker of an earlier agent is replaced; it finishes what it has in flight", "worker_pid", p.pid)
		h.retire(p)
	}
	return nil
}

// openListener takes over the sockets of workers left behind, or opens one.
func (h *helm) openListener(ctx context.Context, orphans []*process) error {
	settings, err := engine.SettingsOf(h.own)
	if err != nil {
		return fmt.Errorf("%s: %w", h.a.opts.ConfigFile, err)
	}
	for _, p := range orphans {
		lns, err := adopt(ctx, p)
		if err != nil {
			h.log.Warn("the sockets of an earlier worker were not taken over", "err", err)
			continue
		}
		for _, ln := range lns {
			if h.listener == nil && sameAddr(ln.Addr(), settings) {
				h.listener = ln
			} else {
				ln.Close()
			}
		}
	}
	if h.listener == nil {
		if h.listener, err = listen(settings, h.a.opts.ConfigFile); err != nil {
			return err
		}
	}
	return nil
}

// sameAddr reports whether a socket is where the settings want one.
func sameAddr(a net.Addr, s engine.ServerSettings) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok || t.Port != s.Port {
		return false
	}
	want := net.ParseIP(s.ListenIP)
	if s.ListenIP == "" || want != nil && want.IsUnspecified() {
		return t.IP.IsUnspecified()
	}
	return want != nil && want.Equal(t.IP)
}

// bytesOf returns the bytes of a configuration on this node. A zero ref is the
// own file, and comes back with its hash.
func (h *helm) bytesOf(ref api.RevisionRef) (api.RevisionRef, []byte, error) {
	if ref.Number == 0 {
		return api.RevisionRef{SHA256: hashOf(h.own)}, h.own, nil
	}
	raw, err := h.a.state.loadConfig(ref.SHA256)
	return ref, raw, err
}

// reread takes the node's own file as it is now. What cannot be used changes
// nothing.
func (h *helm) reread(ctx context.Context) {
	if h.program != nil {
		h.rereadProgram(ctx)
		return
	}
	b, err := h.a.opts.ReadFile(h.a.opts.ConfigFile)
	if err == nil {
		_, err = engine.SettingsOf(b)
	}
	if err != nil {
		h.log.Error("the node's own file cannot be used; the one read before goes on", "file", h.a.opts.ConfigFile, "err", err)
		return
	}
	before := h.own
	h.own = b
	ref, raw := h.run.ref, h.run.raw
	if ref.Number == 0 {
		ref, raw = api.RevisionRef{SHA256: hashOf(b)}, b
	}
	if err := h.bring(ctx, ref, raw, true); err != nil {
		h.own = before
		h.log.Error("the node's own file cannot be run; the one read before goes on", "file", h.a.opts.ConfigFile, "err", err)
		return
	}
	h.refused = refusal{}
	h.log.Info("the node's own file was read again", "file", h.a.opts.ConfigFile, "note", "a changed @cluster block counts from the next start of the agent")
}
