package validate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

const (
	// buildWithin bounds a dry build. Configurations of thousands of endpoints
	// take two seconds on a slow machine.
	buildWithin = 20 * time.Second
	// buildMemory bounds its heap: GOMEMLIMIT makes the collector try hard
	// first, and a quarter more ends the process where the system can do that.
	buildMemory = 768 << 20
	// buildOutput bounds what is read of its output.
	buildOutput = 1 << 20
	// buildStderr is how much of the end of its errors is shown.
	buildStderr = 2 << 10
)

// dryBuild has the gateway build all of the configuration in a process of its
// own, as a node would, without a port: what panics, runs away or calls home in
// there must not touch the manager. raw has no references.
//
// err says that the attempt failed for reasons that are not the configuration's.
func dryBuild(ctx context.Context, binary string, raw []byte) (faults, warnings []api.Fault, err error) {
	dir, err := os.MkdirTemp("", "binnacle-check-")
	if err != nil {
		return nil, nil, fmt.Errorf("prepare the dry build: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "krakend.json")
	built, rewritten := withoutNodeKeys(raw)
	if err := os.WriteFile(file, built, 0o600); err != nil {
		return nil, nil, fmt.Errorf("prepare the dry build: %w", err)
	}

	ctx, cancel := context.WithTimeout(ctx, buildWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "check", "-c", file, "--format", "json")
	cmd.Dir = dir
	// Nothing of the manager's environment: a configuration can read it.
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=/usr/bin:/bin", fmt.Sprintf("GOMEMLIMIT=%d", buildMemory), "GOMAXPROCS=2"}
	cmd.WaitDelay = 2 * time.Second
	stdout, stderr := &headBuffer{max: buildOutput}, &tailBuffer{max: buildStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	isolate(cmd)
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the dry build: is --gateway-binary right? %w", err)
	}
	limit(cmd.Process.Pid, buildMemory+buildMemory/4)
	waitErr := cmd.Wait()

	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return []api.Fault{{Stage: StageBuild, Message: fmt.Sprintf("the build did not end within %v", buildWithin)}}, nil, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case waitErr != nil && !errors.As(waitErr, &exit):
		return nil, nil, fmt.Errorf("run the dry build: %w", waitErr)
	}
	var said []api.Fault
	parseErr := json.Unmarshal(stdout.buf.Bytes(), &said)
	code := cmd.ProcessState.ExitCode()
	if rewritten {
		for i := range said {
			said[i].Line, said[i].Column = 0, 0
		}
	}
	place(raw, said)
	switch {
	case parseErr == nil && code == 0:
		return nil, said, nil
	case parseErr == nil && code == 1 && len(said) > 0:
		return said, nil, nil
	}
	return []api.Fault{{Stage: StageBuild, Message: fmt.Sprintf("the build ended with %s: %s", cmd.ProcessState, stderr.text())}}, nil, nil
}

// withoutNodeKeys takes out what belongs to one node: its plugins and key files
// are not on this machine. A file without such keys stays as it is, lines and
// all.
func withoutNodeKeys(raw []byte) (built []byte, changed bool) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return raw, false
	}
	for key := range top {
		for _, owned := range nodeOwned {
			if strings.EqualFold(key, owned) {
				delete(top, key)
				changed = true
			}
		}
		if !strings.EqualFold(key, "extra_config") {
			continue
		}
		var extra map[string]json.RawMessage
		if json.Unmarshal(top[key], &extra) == nil && extra[binnacle.ConfigBlock] != nil {
			delete(extra, binnacle.ConfigBlock)
			top[key] = marshal(extra)
			changed = true
		}
	}
	if !changed {
		return raw, false
	}
	return marshal(top), true
}

// headBuffer keeps the first max bytes.
type headBuffer struct {
	max int
	buf bytes.Buffer
}

func (b *headBuffer) Write(p []byte) (int, error) {
	b.buf.Write(p[:min(len(p), b.max-b.buf.Len())])
	return len(p), nil
}

// tailBuffer keeps the last max bytes.
type tailBuffer struct {
	max int
	buf []byte
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - b.max; over > 0 {
		b.buf = append(b.buf[:0], b.buf[over:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) text() string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(b.buf), ""))
	if s == "" {
		return "it said nothing"
	}
	return s
}
