package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// check runs the check command on b.
func (pr *program) check(ctx context.Context, b []byte) error {
	if pr.Check == "" {
		return nil
	}
	candidate := filepath.Join(filepath.Dir(pr.file), "."+filepath.Base(pr.file)+".candidate")
	if err := pr.writeBeside(candidate, b); err != nil {
		return err
	}
	defer os.Remove(candidate)
	cmd := strings.ReplaceAll(pr.Check, "{}", shellQuote(candidate))
	if err := pr.shell(ctx, cmd, "BINNACLE_CONFIG_FILE="+candidate); err != nil {
		return fmt.Errorf("the check refuses this configuration: %w", err)
	}
	return nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// shell runs a command; the error has the end of its output.
func (pr *program) shell(ctx context.Context, command string, env ...string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if len(out) > maxCheckText {
		out = out[len(out)-maxCheckText:]
	}
	text := string(bytes.TrimSpace(bytes.ToValidUTF8(out, []byte("?"))))
	if text == "" {
		return fmt.Errorf("%s: %w", command, err)
	}
	return fmt.Errorf("%s: %w: %s", command, err, text)
}

// SignalNamed knows a signal by its name, with or without SIG.
func SignalNamed(s string) (syscall.Signal, bool) {
	sig, ok := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM,
		"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
	}[strings.TrimPrefix(strings.ToUpper(s), "SIG")]
	return sig, ok
}
