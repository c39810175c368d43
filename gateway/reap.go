package gateway

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// reapEvery is the pause between two looks for orphans.
const reapEvery = 5 * time.Second

// reapIfFirst collects orphans until stop, if this is process 1.
func reapIfFirst(ctx context.Context) (stop func()) {
	if os.Getpid() != 1 {
		return func() {}
	}
	ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
	go reapOrphans(ctx, reapEvery)
	return stop
}

// reapOrphans collects the processes that the kernel gave to this one when
// their parents ended, as it does to process 1 of a container, until ctx ends.
//
// It must not take a child away from the goroutine that waits for it. Those
// goroutines collect theirs at once, so a child that has been dead for a whole
// period is nobody's.
func reapOrphans(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	dead := map[int]string{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := deadChildren()
		for pid, start := range now {
			if dead[pid] == start {
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
				delete(now, pid)
			}
		}
		dead = now
	}
}

// deadChildren returns the children of this process that have ended and were
// not waited for, with what tells them from later ones of the same pid.
func deadChildren() map[int]string {
	out := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return out
	}
	self := strconv.Itoa(os.Getpid())
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// pid (name) state ppid …; the name may hold anything.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 19 && f[0] == "Z" && f[1] == self {
			out[pid] = f[19]
		}
	}
	return out
}
