package agent

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// upgradeSettle is how long a changed program must stay as it is before a
// worker is started from it: package managers put files in place by renaming,
// but a copy grows for a while.
const upgradeSettle = 3 * time.Second

// programFile tells one version of a program's file from another.
type programFile struct {
	device, inode uint64
	size          int64
	modified      int64 // Unix nanoseconds
}

// programFileOf looks at the file of a command; zero if there is none.
func programFileOf(command string) programFile {
	path, err := exec.LookPath(command)
	if err != nil {
		return programFile{}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return programFile{}
	}
	b := programFile{size: fi.Size(), modified: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		b.device, b.inode = uint64(st.Dev), st.Ino
	}
	return b
}

// upgrade watches the program that workers are started from.
type upgrade struct {
	runs  programFile // what the worker was started from, or what failed to
	seen  programFile // what stood there at the last look
	since time.Time   // when it was first seen
}

// due reports whether the worker is to be replaced by one of the file as it is
// now.
func (u *upgrade) due(now programFile, at time.Time) bool {
	if now != u.seen {
		u.seen, u.since = now, at
	}
	return now != u.runs && now != programFile{} && at.Sub(u.since) >= upgradeSettle
}

// upgradeWorker starts the next worker when its program on disk is another one.
// The agent itself stays what it is until its own restart.
func (h *helm) upgradeWorker(ctx context.Context) {
	if h.program != nil || h.worker == nil || h.run == nil {
		return
	}
	now := programFileOf(h.a.launcher.command[0])
	if !h.upgrade.due(now, time.Now()) {
		return
	}
	h.log.Info("the program on disk has changed; a worker of the new one takes over", "file", h.a.launcher.command[0])
	err := h.replace(ctx, h.run.ref, h.run.raw, h.run)
	h.upgrade.runs = now // also after a failure: once is enough
	switch {
	case err == nil:
		h.a.metric(`binnacle_agent_worker_upgrades_total{result="ok"}`).Inc()
	case ctx.Err() == nil:
		h.a.metric(`binnacle_agent_worker_upgrades_total{result="failed"}`).Inc()
		h.log.Error("the changed program does not serve; the worker of the one before runs on", "file", h.a.launcher.command[0], "err", err)
	}
}
