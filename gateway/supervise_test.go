package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/binnacle-project/binnacle/gateway/agent"
)

// envSupervise makes the test binary an agent with a program.
const envSupervise = "BINNACLE_TEST_SUPERVISE"

// superviseSpec is what such a process is told.
type superviseSpec struct {
	Block      Block
	ConfigFile string
	Program    agent.Program
}

func superviseProcess(text string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var spec superviseSpec
	err := json.Unmarshal([]byte(text), &spec)
	if err == nil {
		err = Supervise(ctx, SuperviseOptions{
			Block: spec.Block, ConfigFile: spec.ConfigFile, Program: spec.Program,
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestProgramOutlivesItsAgent kills the agent alone: the program runs on, and
// the next agent takes it over as it is, or changes what it runs.
func TestProgramOutlivesItsAgent(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "any.conf"), filepath.Join(dir, "out")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	spec, err := json.Marshal(superviseSpec{
		Block:      Block{Manager: managerList{"127.0.0.1:1"}, TokenFile: filepath.Join(dir, "token"), StateDir: filepath.Join(dir, "state"), Gossip: "off", Advertise: "127.0.0.1:1"},
		ConfigFile: file,
		Program: agent.Program{Reload: "USR1", // a shell cannot trap a HUP that was ignored when it began, as below nohup
			Command: []string{"/bin/sh", "-c", `
			show() { echo "$$ $(cat "$BINNACLE_CONFIG_FILE")" >"` + out + `.new"; mv "` + out + `.new" "` + out + `"; }
			trap show USR1; trap 'exit 0' TERM; show; while :; do sleep 0.05; done`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	shown := func() (pid int, config string) {
		b, _ := os.ReadFile(out)
		fmt.Sscan(string(b), &pid, &config)
		return pid, config
	}
	status := func(pid int) bool {
		s, err := agent.AskStatus(t.Context(), filepath.Join(dir, "state"))
		return err == nil && s.Worker.Serving && s.Worker.PID == pid
	}
	first := startProc(t, "", envSupervise+"="+string(spec))
	var pid int
	waitFor(t, "the program", func() bool { var c string; pid, c = shown(); return c == "one" && status(pid) })
	t.Cleanup(func() { syscall.Kill(-pid, syscall.SIGKILL) }) // it has a group of its own

	kill := func(p *gatewayProc) {
		t.Helper()
		if err := syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-p.ended
		if !alive(pid) {
			t.Fatal("the program ended with its agent")
		}
	}
	kill(first)
	second := startProc(t, "", envSupervise+"="+string(spec))
	waitFor(t, "the next agent to take it over", func() bool { return status(pid) })

	kill(second)
	write("two") // by hand, while nobody looks
	third := startProc(t, "", envSupervise+"="+string(spec))
	waitFor(t, "the changed file", func() bool { got, c := shown(); return c == "two" && got == pid && status(pid) })

	// It dies under an agent that did not start it.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "another one", func() bool { got, c := shown(); return c == "two" && got != pid && status(got) })
	pid, _ = shown()
	third.cmd.Process.Signal(syscall.SIGTERM)
	if err := third.wait(); err != nil {
		t.Errorf("end: %v", err)
	}
	if alive(pid) {
		t.Error("the program outlived an orderly end")
	}
	for _, f := range []string{".new", ".candidate"} {
		if left, _ := filepath.Glob(filepath.Join(dir, "*"+f)); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, ", "))
		}
	}
}
