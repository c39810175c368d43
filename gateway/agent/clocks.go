package agent

import (
	"crypto/rand"
	"time"

	"github.com/binnacle-project/binnacle/licensing"
)

// processClocks counts from now on, as if the machine had just started: time
// between two processes is then known from the wall clock alone.
func processClocks() func() licensing.Clocks {
	start, boot := time.Now(), "process-"+rand.Text()
	return func() licensing.Clocks {
		now := time.Now()
		return licensing.Clocks{Wall: now.Round(0), Boot: boot, Up: now.Sub(start)}
	}
}
