package agent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/binnacle-project/binnacle/licensing"
)

// machineClocks reads the wall clock and the time since the machine started,
// which goes on over restarts of the agent and while the machine is suspended.
// Where the kernel does not tell them, the process's own clock must do.
func machineClocks() func() licensing.Clocks {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	boot := strings.TrimSpace(string(b))
	if _, ok := upTime(); err != nil || boot == "" || !ok {
		return processClocks()
	}
	return func() licensing.Clocks {
		up, _ := upTime()
		return licensing.Clocks{Wall: time.Now().Round(0), Boot: boot, Up: up}
	}
}

func upTime() (time.Duration, bool) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano()), err == nil
}
