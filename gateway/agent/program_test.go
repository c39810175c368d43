package agent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// newNginx prepares a node whose program is the nginx of the system.
func newNginx(t *testing.T, m *fakeManager) *node {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		for _, p := range []string{"/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
			if _, serr := os.Stat(p); serr == nil {
				bin, err = p, nil
			}
		}
	}
	if err != nil {
		t.Skip("nginx is not here: install the Debian package nginx to test supervision with it")
	}
	n := newNode(t, m)
	n.file = filepath.Join(filepath.Dir(n.file), "nginx.conf")
	n.write(n.file, n.nginx("own", ""))
	health := fmt.Sprintf("http://127.0.0.1:%d/healthz", n.port)
	n.program = &Program{
		Command: []string{bin, "-e", "stderr", "-c", n.file, "-g", "daemon off;"},
		Check:   bin + " -e stderr -t -q -c {}", Reload: "HUP", Health: health, StopSignal: syscall.SIGQUIT,
		Settle: 5 * time.Second,
	}
	return n
}

// nginx is a configuration whose /which answers "/<name>".
func (n *node) nginx(name, more string) []byte {
	dir := filepath.Dir(n.file)
	return fmt.Appendf(nil, `worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path %[1]s/tmp; proxy_temp_path %[1]s/tmp; fastcgi_temp_path %[1]s/tmp; uwsgi_temp_path %[1]s/tmp; scgi_temp_path %[1]s/tmp;
  %[4]s
  server {
    listen 127.0.0.1:%[2]d;
    location = /which { return 200 "/%[3]s"; }
    location = /healthz { return 200 "up"; }
  }
}
`, dir, n.port, name, more)
}

func (n *node) file2() string {
	b, err := os.ReadFile(n.file)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// TestSuperviseNginx brings a stock nginx through what a node goes through:
// its own file, revisions under load by reload, a file that its check refuses,
// one that passes the check and does not serve, a crash, a restart order, a
// change by hand, and the end.
func TestSuperviseNginx(t *testing.T) {
	m := newManager(t)
	n := newNginx(t, m).run()
	n.which("own")
	own := api.RevisionRef{SHA256: hashOf(n.nginx("own", ""))}
	m.applied(own)

	stop := n.load(4)
	good := m.push(1, n.nginx("one", ""))
	m.applied(good)
	n.which("one")
	good = m.push(2, n.nginx("two", ""))
	m.applied(good)
	sent, failed := stop()
	t.Logf("%d requests over 2 reloads", sent)
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", len(failed), sent, failed[0])
	}
	pid := n.agent.Status().Worker.PID

	refused := func(ref api.RevisionRef, why string) {
		t.Helper()
		waitFor(t, "the refusal", func() bool {
			s := m.last()
			return s.Attempted != nil && s.Attempted.RevisionRef == ref && s.Attempted.Error != ""
		})
		s := m.last()
		if !strings.Contains(s.Attempted.Error, why) || s.Applied == nil || s.Applied.RevisionRef != good {
			t.Errorf("attempted %+v, applied %+v; want %q and revision %d", s.Attempted, s.Applied, why, good.Number)
		}
		n.which("two")
		if n.file2() != string(n.nginx("two", "")) {
			t.Error("the file is not the one that runs")
		}
	}
	refused(m.push(3, n.nginx("three", "nonsense on;")), "unknown directive")
	sick := bytes.Replace(n.nginx("four", ""), []byte(`return 200 "up"`), []byte(`return 503`), 1)
	refused(m.push(4, sick), "503")
	if got := n.agent.Status().Worker.PID; got != pid {
		t.Errorf("pid %d; want %d: nothing restarts", got, pid)
	}

	// A crash of the master: its workers live on, and must not keep the port.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "nginx to be back", func() bool {
		s := n.agent.Status().Worker
		return s.Serving && s.PID != pid
	})
	n.which("two")

	pid = n.agent.Status().Worker.PID
	m.change(func(p *api.Plan) {
		p.Serial++
		p.Restart = &api.RestartOrder{ID: "r1"}
		p.Revision.RevisionRef = good
		p.Revision.Signature = api.SignRevision(m.auth.Key(), m.auth.Cluster(), binnacle.DefaultGroup, good)
	})
	waitFor(t, "the restart", func() bool { return m.last().RestartDone == "r1" })
	if got := n.agent.Status().Worker.PID; got == pid {
		t.Error("the restart order started no other process")
	}
	n.which("two")

	// By hand, while a revision runs: it is put back, and kept for later.
	n.write(n.file, n.nginx("hand", ""))
	n.agent.Reload()
	waitFor(t, "the file to be put back", func() bool { return n.file2() == string(n.nginx("two", "")) })
	m.change(func(p *api.Plan) { p.Serial++; p.Revision = nil })
	m.applied(api.RevisionRef{SHA256: hashOf(n.nginx("hand", ""))})
	n.which("hand")

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.get("/which"); err == nil {
		t.Error("nginx serves on after the stop")
	}
}

// TestSuperviseBootsFromLastGood starts without a manager, and with a file that
// something else wrote to.
func TestSuperviseBootsFromLastGood(t *testing.T) {
	m := newManager(t)
	n := newNginx(t, m).run()
	ref := m.push(1, n.nginx("one", ""))
	waitFor(t, "last good", func() bool {
		s := m.last()
		return s.LastGood != nil && s.LastGood.RevisionRef == ref
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	m.stop()
	n.write(n.file, []byte("cut o")) // what a disk may do to it
	n.program.Check = ""
	n.run()
	n.which("one")
}

// TestSuperviseAnything uses a program of a few lines of shell: no reload, no
// health address, its environment and references.
func TestSuperviseAnything(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	out := filepath.Join(filepath.Dir(n.file), "out")
	n.file = filepath.Join(filepath.Dir(n.file), "any.conf")
	n.write(n.file, []byte("own"))
	n.program = &Program{Command: []string{"/bin/sh", "-c", `
		trap 'exit 0' TERM
		{ cat "$BINNACLE_CONFIG_FILE"; echo; env | grep ^OTEL_ | sort; } >"` + out + `.new"; mv "` + out + `.new" "` + out + `"
		grep -q crash "$BINNACLE_CONFIG_FILE" && { sleep 1.5; exit 7; }
		while :; do sleep 0.1; done`}}
	n.allow = engine.AllowList{Env: []string{"BINNACLE_TEST_SECRET"}}
	t.Setenv("BINNACLE_TEST_SECRET", "open sesame")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	n.run()
	read := func() string {
		b, _ := os.ReadFile(out)
		return string(b)
	}
	waitFor(t, "the program", func() bool { return strings.HasPrefix(read(), "own\n") })

	good := m.push(1, []byte("secret: ${env:BINNACLE_TEST_SECRET}, text: $${env:X}, nginx: ${host}"))
	m.applied(good)
	got := read()
	if !strings.HasPrefix(got, "secret: open sesame, text: ${env:X}, nginx: ${host}\n") {
		t.Errorf("the file: got %q", got)
	}
	var endpoint string
	for _, want := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_SERVICE_NAME=sh",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test,service.instance.id="} {
		i := strings.Index(got, "\n"+want)
		if i < 0 {
			t.Errorf("the environment lacks %s: %s", want, got)
			continue
		}
		if strings.Contains(want, "ENDPOINT") {
			endpoint, _, _ = strings.Cut(got[i+1+len("OTEL_EXPORTER_OTLP_ENDPOINT="):], "\n")
		}
	}
	// What it exports goes under the revision that runs.
	resp, err := http.Post(endpoint+"/v1/metrics", "application/x-protobuf", strings.NewReader("points"))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	waitFor(t, "the export", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, e := range m.exports {
			if e == "/v1/metrics 1" {
				return true
			}
		}
		return false
	})
	waitFor(t, "last good", func() bool { s := m.last(); return s.LastGood != nil && s.LastGood.RevisionRef == good })

	m.push(2, []byte("not allowed: ${env:HOME}"))
	waitFor(t, "the refusal", func() bool {
		s := m.last()
		return s.Attempted.Number == 2 && strings.Contains(s.Attempted.Error, "allow-list")
	})

	bad := m.push(3, []byte("crash"))
	waitFor(t, "the way back", func() bool {
		s := m.last()
		return s.Attempted != nil && s.Attempted.RevisionRef == bad && strings.Contains(s.Attempted.Error, "exit status 7") && s.Applied.RevisionRef == good
	})
	waitFor(t, "the good file", func() bool { return strings.HasPrefix(read(), "secret: open") })
}

func TestProgramOptions(t *testing.T) {
	f := func(p Program, want string) {
		t.Helper()
		err := p.validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("validate(%+v): got %v; want %q", p, err, want)
		}
	}
	cmd := []string{"x"}
	f(Program{Command: cmd}, "")
	f(Program{}, "name the command")
	f(Program{Command: cmd, Check: "nginx -t"}, "{}")
	f(Program{Command: cmd, Check: `nginx -t -c "$BINNACLE_CONFIG_FILE"`, Health: "http://h/x"}, "")
	f(Program{Command: cmd, Health: "localhost:80"}, "health")
	f(Program{Command: cmd, Health: "tcp://localhost"}, "health")
	for health, want := range map[string]int{"": 0, "http://h/x": 80, "https://h": 443, "tcp://h:81": 81, "http://h:8080/": 8080} {
		if got := (&Program{Health: health}).port(); got != want {
			t.Errorf("port of %q: got %d; want %d", health, got, want)
		}
	}
}
