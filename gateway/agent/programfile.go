package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"syscall"

	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// changedByHand returns the file's content and whether somebody else wrote it.
func (pr *program) changedByHand() (b []byte, changed bool, err error) {
	f, err := os.Open(pr.file)
	if err != nil {
		return nil, false, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, maxProgramConfig+1)); err != nil {
		return nil, false, fmt.Errorf("read the configuration: %w", err)
	}
	if len(b) > maxProgramConfig {
		return nil, false, fmt.Errorf("read the configuration %s: it has more than %d bytes", pr.file, maxProgramConfig)
	}
	hash := hashOf(b)
	for _, w := range pr.written {
		if w == hash {
			return b, false, nil
		}
	}
	return b, true, nil
}

// place makes b the program's configuration file, atomically, with the mode and
// the owner of the one before.
func (pr *program) place(b []byte) error {
	hash := hashOf(b)
	if len(pr.written) == 0 || pr.written[0] != hash {
		// Known as ours before it is there; the one before is there still.
		pr.written = append([]string{hash}, pr.written[:min(len(pr.written), 3)]...)
		if err := pr.a.state.saveJSON(fileWritten, pr.written); err != nil {
			return err
		}
	}
	if err := pr.writeBeside(pr.file+".new", b); err != nil {
		return err
	}
	if err := atomicfile.Rename(pr.file+".new", pr.file); err != nil {
		return fmt.Errorf("put the configuration in place (its folder must be writable; mount the folder, not the file): %w", err)
	}
	return nil
}

// writeBeside writes b to path like the program's configuration file.
func (pr *program) writeBeside(path string, b []byte) error {
	if err := atomicfile.WriteSynced(path, b); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	fi, err := os.Stat(pr.file)
	if err != nil {
		return nil // the first one: for us alone
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		os.Chown(path, int(st.Uid), int(st.Gid)) //nolint:errcheck // only root can; others own it anyway
	}
	if err := os.Chmod(path, fi.Mode().Perm()); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// textReference matches a reference in a text of any format.
var textReference = regexp.MustCompile(`\$?\$\{(?:env|file):[^{}"\\\n]*\}`)

// resolveText is engine.Resolve for a text that is no JSON.
func resolveText(raw []byte, allow engine.AllowList) ([]byte, error) {
	var errs []error
	out := textReference.ReplaceAllFunc(raw, func(ref []byte) []byte {
		doc, err := json.Marshal(map[string]string{"v": string(ref)})
		if err == nil {
			doc, err = engine.Resolve(doc, allow)
		}
		var v struct {
			V string `json:"v"`
		}
		if err == nil {
			err = json.Unmarshal(doc, &v)
		}
		if err != nil {
			errs = append(errs, err)
			return ref
		}
		return []byte(v.V)
	})
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("fill in the node's own values: %w", err)
	}
	return out, nil
}
