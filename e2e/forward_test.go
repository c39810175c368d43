package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestForwarding passes spans and metrics on to a second manager, over its
// kill -9 and its absence, during which this one takes more and is restarted.
func TestForwarding(t *testing.T) {
	remote := startManager(t)
	c := startManager(t, "--forward-otlp", remote.otlp)
	id := func(i int) string { return fmt.Sprintf("%032x", 0xf0f000+i) }
	send := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if status, _, body := c.sendTrace(id(i), time.Millisecond, false); status != http.StatusOK {
				t.Fatalf("status %d: %s", status, body)
			}
		}
	}
	arrived := func(to int) func() error {
		return func() error {
			for i := range to {
				if !remote.hasTrace(id(i)) {
					return fmt.Errorf("trace %d is not there", i)
				}
			}
			return nil
		}
	}
	send(0, 10)
	eventually(t, 20*time.Second, "the first are forwarded", arrived(10))
	// A second later they are durable there, too.
	time.Sleep(time.Second)
	remote.manager.kill(t)
	send(10, 20)
	eventually(t, 20*time.Second, "forwarding is tried", func() error {
		n, err := c.metric(c.token("admin.token"), `binnacle_forward_retries_total{signal="traces"}`)
		if err == nil && n == 0 {
			err = fmt.Errorf("no retry")
		}
		return err
	})
	c.manager.stop(t)
	c.runManager()
	send(20, 30)
	remote.runManager()
	eventually(t, 60*time.Second, "all is forwarded", arrived(30))
	if n, err := c.metric(c.token("admin.token"), `binnacle_forward_items_total{signal="traces",result="dropped"}`); n != 0 || err != nil {
		t.Errorf("dropped: %v, %v; want 0", n, err)
	}
}
