package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/binnacle-project/binnacle/api"
)

// Bounds of Resolve, so that a revision cannot fill a node's memory.
const (
	maxReferences   = 10_000
	maxSecretBytes  = 1 << 20
	maxResolveBytes = 16 << 20
)

// AllowList says which ${env:NAME} and ${file:PATH} references a node's owner
// allows revisions to use. The zero value allows none.
type AllowList struct {
	// Env lists names; a trailing * matches any rest ("API_*").
	Env []string
	// Files lists absolute paths of files and, with a trailing /, of folders
	// with all below them. A link must end inside too.
	Files []string
}

// reference matches one reference, with the dollar before it that takes its
// meaning away. It runs on raw JSON: braces and colons are never escaped
// there, and names with escapes are not worth supporting.
var reference = regexp.MustCompile(`\$?\$\{(env|file):([^{}"\\]*)\}`)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Resolve replaces ${env:NAME} and ${file:PATH} inside the JSON strings of raw
// by their values on this node, within allow; a second dollar before one
// ($${env:NAME}) leaves it as text, with one dollar. The last newline of a
// file is left out. Without references raw is returned as it is. The error
// names every reference that failed and where it stands, never a value.
func Resolve(raw []byte, allow AllowList) ([]byte, error) {
	return resolve(raw, allow.lookup)
}

// resolve replaces each reference by what lookup says.
func resolve(raw []byte, lookup func(kind, name string) (string, error)) ([]byte, error) {
	found := reference.FindAllSubmatchIndex(raw, maxReferences+1)
	if len(found) == 0 {
		return raw, nil
	}
	if len(found) > maxReferences {
		return nil, fmt.Errorf("resolve references: more than %d in one configuration", maxReferences)
	}
	if f := checkSyntax(raw); f != nil { // braces and quotes outside strings are impossible now
		return nil, fmt.Errorf("resolve references: %w", &BuildError{[]api.Fault{*f}})
	}
	var out bytes.Buffer
	var errs []error
	last := 0
	for _, m := range found {
		out.Write(raw[last:m[0]])
		last = m[1]
		if bytes.HasPrefix(raw[m[0]:], []byte("$$")) {
			out.Write(raw[m[0]+1 : m[1]])
			continue
		}
		kind, name := string(raw[m[2]:m[3]]), string(raw[m[4]:m[5]])
		v, err := lookup(kind, name)
		if err != nil {
			line, column := lineColumn(raw, m[0])
			errs = append(errs, fmt.Errorf("line %d column %d: ${%s:%s}: %w", line, column, kind, name, err))
			continue
		}
		quoted, err := json.Marshal(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("${%s:%s}: %w", kind, name, err))
			continue
		}
		out.Write(quoted[1 : len(quoted)-1])
		if out.Len() > maxResolveBytes {
			return nil, fmt.Errorf("resolve references: the result exceeds %d MiB", maxResolveBytes>>20)
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("resolve references: %w", errors.Join(errs[:min(len(errs), maxFaults)]...))
	}
	out.Write(raw[last:])
	return out.Bytes(), nil
}

var errNotAllowed = errors.New("not in this node's allow-list; its owner can add it there")

func (a AllowList) lookup(kind, name string) (string, error) {
	if kind == "env" {
		return a.env(name)
	}
	return a.file(name)
}

func (a AllowList) env(name string) (string, error) {
	if !envName.MatchString(name) {
		return "", errors.New("not a name of an environment variable")
	}
	if !a.allowsEnv(name) {
		return "", errNotAllowed
	}
	v, ok := os.LookupEnv(name)
	if !ok {
		return "", errors.New("not set on this node")
	}
	if !utf8.ValidString(v) {
		return "", errors.New("its value is not UTF-8")
	}
	return v, nil
}

func (a AllowList) allowsEnv(name string) bool {
	for _, p := range a.Env {
		prefix, any := strings.CutSuffix(p, "*")
		if name == p || (any && strings.HasPrefix(name, prefix)) {
			return true
		}
	}
	return false
}

func (a AllowList) file(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", errors.New("not an absolute path")
	}
	if !a.allowsFile(filepath.Clean(path)) {
		return "", errNotAllowed
	}
	// A link inside an allowed folder must not lead out of it. The folder
	// itself may be reached by links, so both sides are resolved.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if !a.resolved().allowsFile(real) {
		return "", fmt.Errorf("leads to %s: %w", real, errNotAllowed)
	}
	f, err := os.Open(real)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return "", err
	} else if !st.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSecretBytes {
		return "", fmt.Errorf("larger than %d MiB", maxSecretBytes>>20)
	}
	if !utf8.Valid(b) {
		return "", errors.New("its content is not UTF-8")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// allowsFile expects a clean path.
func (a AllowList) allowsFile(path string) bool {
	for _, p := range a.Files {
		dir := strings.HasSuffix(p, "/")
		p = filepath.Clean(p)
		if path == p && !dir {
			return true
		}
		if dir && strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

// resolved returns a with the links of its own paths followed.
func (a AllowList) resolved() AllowList {
	files := make([]string, 0, len(a.Files))
	for _, p := range a.Files {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			if strings.HasSuffix(p, "/") {
				real += "/"
			}
			files = append(files, real)
		}
	}
	return AllowList{Env: a.Env, Files: files}
}
