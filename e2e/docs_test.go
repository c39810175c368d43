package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// runDocs are the documents whose commands are run, in this order, against a
// cluster. In all others commands and flags are only checked.
var runDocs = []string{"README.md", "docs/try-it.md", "docs/join.md", "docs/operations.md", "docs/playbooks.md", "docs/grafana.md"}

// command is one line of a fenced block of type sh.
type command struct {
	file string
	line int
	text string
}

// commandsOf reads the commands of a document: lines of ```sh blocks, those that
// end in a backslash joined.
func commandsOf(t *testing.T, file string) (list []command) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		t.Fatal(err)
	}
	var inside bool
	var text string
	for i, line := range strings.Split(string(b), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "```"):
			inside = trimmed == "```sh"
		case !inside || trimmed == "":
		case strings.HasSuffix(trimmed, `\`):
			text += strings.TrimSuffix(trimmed, `\`)
		default:
			list = append(list, command{file, i + 1, text + trimmed})
			text = ""
		}
	}
	return list
}

// TestDocs runs the commands of the documents. Those of binnacle and curl run
// for real, with the addresses and files of the test in the place of the
// examples'; of programs that would stay, the flags are checked; targets of make
// must exist. A comment that begins with "needs" or "as root" says why a line
// is only checked.
func TestDocs(t *testing.T) {
	c := startManager(t)
	c.addNode("gw-1", docsGateway)
	c.addNode("gw-2", docsGateway)
	c.waitStates(30*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive})
	d := docs{t: t, c: c, dir: t.TempDir()}
	d.prepare()
	for _, file := range runDocs {
		for _, cmd := range commandsOf(t, file) {
			d.run(cmd, true)
		}
	}
	if d.ran < 35 {
		t.Errorf("%d commands were run; the documents have more, or their blocks are not found", d.ran)
	}
	others, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	references, err := filepath.Glob("../docs/reference/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(others, references...) {
		file := strings.TrimPrefix(path, "../")
		if strings.Contains(strings.Join(runDocs, " "), file) {
			continue
		}
		for _, cmd := range commandsOf(t, file) {
			d.run(cmd, false)
		}
	}
	t.Logf("%d commands of the documents were run, %d checked", d.ran, d.checked)
	checkLinks(t)
}

var docsGateway = map[string]any{
	"version": 3, "timeout": "2s",
	"endpoints": []any{map[string]any{"endpoint": "/hello", "backend": []any{map[string]any{"host": []any{"http://127.0.0.1:9999"}, "url_pattern": "/"}}}},
}

type docs struct {
	t            *testing.T
	c            *cluster
	dir          string
	ran, checked int
}

// prepare lays out the files that the examples name.
func (d *docs) prepare() {
	if err := os.MkdirAll(filepath.Join(d.dir, "manager"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	writeJSON(d.t, filepath.Join(d.dir, "krakend.json"), docsGateway)
	// What the documents copy is what the manager wrote.
	for name, to := range map[string]string{
		filepath.Join(d.c.dir, "manager", "ca"):      "data/ca",
		filepath.Join(d.c.dir, "manager", "license"): "data/license",
		filepath.Join(d.c.dir, "tokens"):             "data/tokens",
	} {
		if err := os.CopyFS(filepath.Join(d.dir, to), os.DirFS(name)); err != nil {
			d.t.Fatal(err)
		}
	}
}

var (
	makeTarget = regexp.MustCompile(`(?m)^([a-z-]+):`)
	needs      = regexp.MustCompile(` #\s*(needs|as root)`)
	comment    = regexp.MustCompile(`\s+#\s.*$`)
)

func (d *docs) run(cmd command, real bool) {
	d.t.Helper()
	text := strings.TrimSpace(cmd.text)
	real = real && !needs.MatchString(text)
	text = comment.ReplaceAllString(text, "")
	text = strings.TrimPrefix(text, "bin/")
	program, _, _ := strings.Cut(text, " ")
	fail := func(format string, args ...any) {
		d.t.Errorf("%s:%d: %s\n%s", cmd.file, cmd.line, cmd.text, fmt.Sprintf(format, args...))
	}
	switch program {
	case "make":
		d.checked++
		b, err := os.ReadFile("../Makefile")
		if err != nil {
			d.t.Fatal(err)
		}
		for _, target := range strings.Fields(text)[1:] {
			if strings.Contains(target, "=") {
				break
			}
			if !strings.Contains(" "+strings.Join(flatten(makeTarget.FindAllStringSubmatch(string(b), -1)), " ")+" ", " "+target+" ") {
				fail("the Makefile has no target %s", target)
			}
		}
		return
	case "binnacle", "curl", "mkdir", "cp":
	case "binnacle-manager", "binnacle-gateway":
		real = real && (strings.Contains(text, " restore ") || strings.Contains(text, " check ") && !strings.Contains(text, "supervise"))
	default: // alias, export, install …: the shell's own business
		return
	}
	if !real {
		if strings.HasPrefix(program, "binnacle") && !strings.Contains(text, "[") {
			d.checked++
			shown, _, _ := strings.Cut(text, " -- ") // what follows is another program's
			shown, _, _ = strings.Cut(shown, " > ")
			if out, err := d.shell(shown + " --help"); err != nil {
				fail("%v\n%s", err, out)
			}
		}
		return
	}
	d.ran++
	if strings.HasSuffix(text, "binnacle top") {
		text += " -n 1" // the reader ends it
	}
	if out, err := d.shell(text); err != nil {
		fail("%v\n%s", err, out)
	}
}

func flatten(matches [][]string) (out []string) {
	for _, m := range matches {
		out = append(out, m[1])
	}
	return out
}

// shell runs a line as a reader would, in a folder of its own.
func (d *docs) shell(line string) (string, error) {
	line = strings.NewReplacer(
		"/var/lib/binnacle/", d.dir+"/data/", "demo-data/tokens/", d.dir+"/data/tokens/", "my-cluster/tokens/", d.dir+"/data/tokens/", "/etc/krakend/", d.dir+"/",
		"http://127.0.0.1:9897", d.c.base, "10.0.0.5:9897", strings.TrimPrefix(d.c.base, "http://"),
	).Replace(line)
	ctx, cancel := context.WithTimeout(d.t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = d.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BINNACLE_MANAGER="+d.c.base, "BINNACLE_CONTEXTS="+filepath.Join(d.dir, "contexts.yaml"),
		"BINNACLE_TOKEN_FILE="+filepath.Join(d.c.dir, "tokens", "admin.token"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var (
	mdLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// checkLinks follows each relative link between the documents, to its heading.
func checkLinks(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(append(files, more...), "../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mdLink.FindAllStringSubmatch(string(b), -1) {
			u, err := url.Parse(m[1])
			if err != nil || u.Scheme != "" {
				continue
			}
			to := file
			if u.Path != "" {
				to = filepath.Join(filepath.Dir(file), u.Path)
			}
			target, err := os.ReadFile(to)
			if err != nil && !isDir(to) {
				t.Errorf("%s links to %s, which is not there", file, m[1])
				continue
			}
			if u.Fragment == "" {
				continue
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(string(target), -1) {
				slug := strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || slug == u.Fragment
			}
			if !found {
				t.Errorf("%s links to %s: that document has no such heading", file, m[1])
			}
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
