package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// stateDir keeps what a node knows over restarts. Each file is
//
//	binnacle-state v1 <name> <sha-256 of the body, hex>\n
//	<body>
//
// written under another name, synced, renamed into place, and the folder
// synced. The file before it stays as <name>.prev, so that a file that the
// disk damaged (cut off at any byte, bits turned) costs one step back and never
// a start. Damaged files are moved aside, never deleted.
//
// Configurations lie under configs/ by their hash, which proves them.
type stateDir struct {
	dir  string
	log  *slog.Logger
	lock *os.File
}

// Names of the files.
const (
	fileKey      = "node.key"
	fileIdentity = "identity.json"
	filePlan     = "plan.json"
	fileLedger   = "ledger.json"
	fileLease    = "lease.json"
	fileLock     = "agent.lock"
	filePeers    = "peers.json"
	dirConfigs   = "configs"
	// socketAgent answers the status command.
	socketAgent = "agent.sock"
)

// ErrInUse is returned when another agent works on the same folder.
var ErrInUse = errors.New("another agent is using this folder")

// openState opens dir, making it if need be, for this process alone.
func openState(dir string, log *slog.Logger) (*stateDir, error) {
	if err := os.MkdirAll(filepath.Join(dir, dirConfigs), 0o700); err != nil {
		return nil, fmt.Errorf("state folder %s: %w; set state_dir in the @cluster block to a folder that this user may write", dir, err)
	}
	// Keys are in here, also if the folder was made by somebody else.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w; set state_dir in the @cluster block to a folder that this user may write", dir, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("state folder %s: %w; give each node of this machine its own state_dir (or name)", dir, ErrInUse)
		}
		return nil, fmt.Errorf("state folder %s: lock: %w", dir, err)
	}
	return &stateDir{dir: dir, log: log, lock: lock}, nil
}

// Close lets the next agent in.
func (s *stateDir) Close() error { return s.lock.Close() }

func (s *stateDir) path(name string) string { return filepath.Join(s.dir, name) }

func seal(name string, body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(fmt.Appendf(nil, "binnacle-state v1 %s %x\n", name, sum), body...)
}

var errDamaged = errors.New("damaged")

// unseal returns the body of a sealed file. Anything but exactly what seal
// made is errDamaged.
func unseal(name string, b []byte) ([]byte, error) {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return nil, fmt.Errorf("%w: no header in %d bytes", errDamaged, len(b))
	}
	sum := sha256.Sum256(body)
	if string(head) != fmt.Sprintf("binnacle-state v1 %s %x", name, sum) {
		return nil, fmt.Errorf("%w: header %.80q does not fit the %d bytes that follow", errDamaged, head, len(body))
	}
	return body, nil
}

// save replaces the file; it is on disk when save returns.
func (s *stateDir) save(name string, body []byte) error {
	path := s.path(name)
	if err := atomicfile.WriteSynced(path+".new", seal(name, body)); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	// The step from here to the second rename may stop anywhere: load looks at
	// both names.
	if err := os.Rename(path, path+".prev"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("save %s: %w", path, err)
	}
	if err := atomicfile.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

// load returns the newest undamaged version of the file, or fs.ErrNotExist.
// The versions are tried in the order of their age, also the .new that a stop
// left before its rename: it is complete or does not verify.
func (s *stateDir) load(name string) ([]byte, error) {
	path := s.path(name)
	for _, p := range []string{path, path + ".new", path + ".prev"} {
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load state: %w", err)
		}
		body, err := unseal(name, b)
		if err == nil {
			return body, nil
		}
		if p != path {
			continue
		}
		aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().UnixNano())
		if rerr := os.Rename(p, aside); rerr != nil {
			return nil, fmt.Errorf("load %s: %w; moving it aside failed: %w", path, err, rerr)
		}
		s.log.Warn("a state file was damaged; it was moved aside and the one before it is used, if there is one", "file", path, "aside", aside, "err", err)
	}
	return nil, fmt.Errorf("load %s: %w", path, fs.ErrNotExist)
}

// saveTwice is save for what is written once in a node's life, so that it has a
// version before it as well.
func (s *stateDir) saveTwice(name string, body []byte) error {
	if err := s.save(name, body); err != nil {
		return err
	}
	return s.save(name, body)
}

func (s *stateDir) saveJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return s.save(name, b)
}

// loadJSON decodes the file into v. A body that verifies but does not decode
// was written by another version: it is reported, not moved.
func (s *stateDir) loadJSON(name string, v any) error {
	b, err := s.load(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("load %s: %w", s.path(name), err)
	}
	return nil
}

// remove takes the file and the version before it away.
func (s *stateDir) remove(name string) error {
	var errs []error
	for _, suffix := range []string{"", ".prev", ".new"} {
		if err := os.Remove(s.path(name) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, atomicfile.SyncDir(s.dir))...)
}

// saveConfig keeps the bytes of a configuration under their hash.
func (s *stateDir) saveConfig(sha string, raw []byte) error {
	if got := hashOf(raw); got != sha {
		return fmt.Errorf("BUG: keep configuration %s: its bytes have hash %s", sha, got)
	}
	path := filepath.Join(s.dir, dirConfigs, sha)
	if have, err := os.ReadFile(path); err == nil && hashOf(have) == sha {
		return nil
	}
	if err := atomicfile.Write(path, raw, 0o600); err != nil {
		return fmt.Errorf("keep configuration %s: %w", sha, err)
	}
	return nil
}

// loadConfig returns the bytes kept under sha. Damaged ones are as good as
// none.
func (s *stateDir) loadConfig(sha string) ([]byte, error) {
	if !isHash(sha) {
		return nil, fmt.Errorf("%q is no SHA-256: %w", sha, fs.ErrNotExist)
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, dirConfigs, sha))
	if err != nil {
		return nil, err
	}
	if got := hashOf(raw); got != sha {
		return nil, fmt.Errorf("configuration %s is %w: its %d bytes have hash %s", sha, errDamaged, len(raw), got)
	}
	return raw, nil
}

// keepConfigs deletes all configurations but those.
func (s *stateDir) keepConfigs(shas map[string]bool) {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirConfigs))
	if err != nil {
		s.log.Warn("old configurations were not cleaned up", "err", err)
		return
	}
	for _, e := range entries {
		if !shas[strings.TrimSuffix(e.Name(), ".new")] {
			if err := os.Remove(filepath.Join(s.dir, dirConfigs, e.Name())); err != nil {
				s.log.Warn("an old configuration was not deleted", "err", err)
			}
		}
	}
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}
