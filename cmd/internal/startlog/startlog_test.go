package startlog_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	_ "github.com/VictoriaMetrics/metrics"

	_ "github.com/binnacle-project/binnacle/cmd/internal/startlog"
)

// TestNotice runs this test's own program again, which is linked with the metrics
// library: the line must not come where the kernel gives no such information.
func TestNotice(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(errs.String(), "PSI") {
		t.Errorf("standard error has %q", errs.String())
	}
}
