// Package atomicfile writes files that are whole or not there, also after a
// crash and a cut of power, and that are on disk when a call returns. It knows
// nothing of what the files hold and leaves versions, checksums and repair to
// its callers. Whoever keeps a file of its own beside control state imports it:
// membership, licensing, activity and the node's agent.
//
// A write that a crash cut leaves a file path.new behind, at most one for each
// path, and the next write of that path takes it away.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// beside is the name under which a file is filled before it is put in place.
func beside(path string) string { return path + ".new" }

// Write replaces the file at path, or makes it, with mode whatever the umask. At
// no time is there anything else at path than all of the old file or all of b. Of
// two writers of one path at once, one gets an error.
func Write(path string, b []byte, mode fs.FileMode) error {
	tmp := beside(path)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := create(tmp, b, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

// WriteNew makes the file at path and never replaces one: then the error is
// fs.ErrExist. It is for keys, which nobody may lose to a wrong argument.
func WriteNew(path string, b []byte, mode fs.FileMode) error {
	if err := create(path, b, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// WriteFolder makes the folder dir, mode 0700, with the files given by name,
// mode 0600, all or nothing. A dir that exists must be empty.
func WriteFolder(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	tmp := beside(dir)
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // nothing is left there once it was renamed
	for name, b := range files {
		if err := create(filepath.Join(tmp, name), b, 0o600); err != nil {
			return err
		}
	}
	if err := SyncDir(tmp); err != nil {
		return err
	}
	return Rename(tmp, dir)
}

// create writes b to a new file, durably but for its name in the folder. On an
// error nothing of it stays.
func create(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// WriteSynced writes b to path, mode 0600 if it is new, in place: a crash may
// leave a part of it. It is for a file that is put in place by Rename later, or
// that carries a checksum.
func WriteSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// Rename renames durably. Both paths must be in one folder.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes names that were made, changed or removed in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
