package e2e

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// shutdownNow is EXT4_IOC_SHUTDOWN, with the flag that drops what is not on disk:
// to the file system, a cut of power.
const (
	shutdownNow = 0x8004587d
	noLogFlush  = 2
)

const gaugeExport = `{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}},{"key":"service.instance.id","value":{"stringValue":"power"}}]},
"scopeMetrics":[{"metrics":[{"name":"%s","gauge":{"dataPoints":[{"timeUnixNano":"%d","asInt":"1"}]}}]}]}]}`

// TestPowerLoss keeps a manager's data on a disk of its own, cuts that disk's
// power while metrics and spans come in, again and again, and wants all that was
// acknowledged a second before the cut to be there afterwards. A killed process
// alone loses nothing: the system still writes what it was given.
//
// It needs the right to mount, and some ten seconds a round: `make test-power`.
func TestPowerLoss(t *testing.T) {
	if os.Getenv("BINNACLE_LOAD") != "full" {
		t.Skip("BINNACLE_LOAD is not full: make test-power runs it")
	}
	c := prepareManager(t)
	dir, image := filepath.Join(c.dir, "manager"), filepath.Join(c.dir, "disk")
	sh := func(command string, args ...string) {
		t.Helper()
		if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", command, args, err, out)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sh("truncate", "-s", "1G", image)
	sh("mkfs.ext4", "-qF", image)
	mount := func() { t.Helper(); sh("mount", "-o", "loop", image, dir) }
	mount()
	t.Cleanup(func() {
		c.manager.stop(t)
		sh("umount", dir)
	})
	type batch struct {
		n             int
		metric, spans time.Time // when they were acknowledged
	}
	trace := func(n int) string { return fmt.Sprintf("%032x", 0xabc0000+n) }
	next := 0
	for round := range 8 {
		c.runManager()
		var (
			acked []batch
			stop  = make(chan struct{})
			wg    sync.WaitGroup
		)
		wg.Go(func() {
			for ; ; next++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				b := batch{n: next}
				resp, err := http.Post(c.otlp+"/v1/metrics", "application/json", strings.NewReader(fmt.Sprintf(gaugeExport, fmt.Sprintf("g%d", next), time.Now().UnixNano())))
				if err != nil {
					return
				}
				resp.Body.Close()
				b.metric = time.Now()
				now := time.Now()
				spans, err := http.Post(c.otlp+"/v1/traces", "application/json", strings.NewReader(fmt.Sprintf(tracesExport, trace(next), now.UnixNano(), now.UnixNano(), 0)))
				if err != nil {
					return
				}
				spans.Body.Close()
				b.spans = time.Now()
				if resp.StatusCode == http.StatusOK && spans.StatusCode == http.StatusOK {
					acked = append(acked, b)
				}
			}
		})
		time.Sleep(3300*time.Millisecond + time.Duration(round)*370*time.Millisecond) // at ever other points of a second
		disk, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		var flag [4]byte
		binary.NativeEndian.PutUint32(flag[:], noLogFlush)
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, disk.Fd(), shutdownNow, uintptr(unsafe.Pointer(&flag)))
		cut := time.Now()
		disk.Close()
		if errno != 0 {
			t.Fatalf("shut the file system down: %v", errno)
		}
		c.manager.kill(t)
		close(stop)
		wg.Wait()
		sh("umount", dir)
		mount()
		c.runManager()

		var names struct{ Data []string }
		if err := c.get("/prometheus/api/v1/label/__name__/values?match[]="+url.QueryEscape(`{instance="power"}`), c.token("admin.token"), &names); err != nil {
			t.Fatal(err)
		}
		var lostMetrics, lostSpans int
		var oldestMetric, oldestSpan time.Duration
		for _, b := range acked {
			if !slices.Contains(names.Data, fmt.Sprintf("g%d", b.n)) {
				lostMetrics++
				oldestMetric = max(oldestMetric, cut.Sub(b.metric))
			}
			if !c.hasTrace(trace(b.n)) {
				lostSpans++
				oldestSpan = max(oldestSpan, cut.Sub(b.spans))
			}
		}
		t.Logf("round %d: %d batches acknowledged; lost: %d of metrics, the oldest %.2f s before the cut; %d of spans, %.2f s",
			round, len(acked), lostMetrics, oldestMetric.Seconds(), lostSpans, oldestSpan.Seconds())
		if oldestMetric > time.Second || oldestSpan > time.Second {
			t.Errorf("round %d: what was acknowledged a second before the cut is lost", round)
		}
		c.manager.stop(t)
	}
}
