package forward

import (
	"fmt"
	"strings"
)

// signal is metrics or traces.
type signal uint8

const (
	metricsSignal signal = iota
	tracesSignal
	numSignals
)

func (s signal) String() string { return [numSignals]string{"metrics", "traces"}[s] }

func parseSignals(text string) (on [numSignals]bool, err error) {
	for name := range strings.SplitSeq(text, ",") {
		switch strings.TrimSpace(name) {
		case "metrics":
			on[metricsSignal] = true
		case "traces":
			on[tracesSignal] = true
		default:
			return on, fmt.Errorf("signal %q: want metrics, traces or metrics,traces", name)
		}
	}
	return on, nil
}
