// Package backup makes copies of what a manager cannot make anew, while it runs:
// control state, the cluster key, the local issuer's key and the page's
// authority.
//
// A backup is a folder, whole or not there:
//
//	20261128T175500Z/
//	    backup.json      what it holds: cluster, version, time, epoch
//	    state.snapshot   control state, for binnacle-manager restore --from
//	    ca/ license/ tls/
//
// It is as secret as the data directory. Telemetry and the token files are not
// in it: the first is too large, the others are made anew. What is in the
// snapshot is state's business, what the keys mean membership's and licensing's.
// The manager imports it.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

const (
	fileManifest = "backup.json"
	fileSnapshot = "state.snapshot"
	// nameForm is the form of a backup's name, in UTC: names sort by age.
	nameForm   = "20060102T150405Z"
	unfinished = "unfinished-"
	// maxKeyFile bounds the small files that are copied along.
	maxKeyFile = 1 << 20
)

// keyFolders are the folders of small files in the data directory that belong to
// control state.
var keyFolders = []string{"ca", "license", "tls"}

// Info is backup.json.
type Info struct {
	Cluster binnacle.ClusterID `json:"cluster"`
	Version string             `json:"version"` // of the manager
	Taken   time.Time          `json:"taken"`
	// Epoch is that of control state then, Keys how many keys it had.
	Epoch uint64 `json:"epoch"`
	Keys  int    `json:"keys"`
	// Path is where the backup is now.
	Path string `json:"-"`
}

// Source is what backups are made of.
type Source struct {
	Store   *state.Store
	Cluster binnacle.ClusterID
	// DataDir is the manager's; Dir is where backups go.
	DataDir, Dir string
}

// Write makes a backup of this moment. Writers of control state go on
// meanwhile. It is on disk, whole, when Write returns.
func Write(ctx context.Context, s Source, now time.Time) (Info, error) {
	b, err := write(ctx, s, now.UTC().Truncate(time.Second))
	if err != nil {
		return b, fmt.Errorf("make a backup in %s: %w", s.Dir, err)
	}
	return b, nil
}

func write(ctx context.Context, s Source, now time.Time) (Info, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return Info{}, err
	}
	work, err := os.MkdirTemp(s.Dir, unfinished)
	if err != nil {
		return Info{}, err
	}
	defer os.RemoveAll(work)

	b := Info{Version: binnacle.Version, Cluster: s.Cluster, Taken: now, Path: filepath.Join(s.Dir, now.Format(nameForm))}
	snapshot, err := writeSnapshot(ctx, s.Store, filepath.Join(work, fileSnapshot))
	if err != nil {
		return Info{}, err
	}
	b.Epoch, b.Keys = snapshot.Epoch, snapshot.Keys
	for _, folder := range keyFolders {
		if err := copyFolder(s.DataDir, work, folder); err != nil {
			return Info{}, err
		}
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return Info{}, err
	}
	if err := atomicfile.WriteNew(filepath.Join(work, fileManifest), append(text, '\n'), 0o600); err != nil {
		return Info{}, err
	}
	if there, err := describe(b.Path); err == nil {
		return there, nil // of the same second: as good
	}
	return b, atomicfile.Rename(work, b.Path)
}

// writeSnapshot writes control state to path and reads it back: a backup that
// cannot be read is none.
func writeSnapshot(ctx context.Context, store *state.Store, path string) (state.SnapshotInfo, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return state.SnapshotInfo{}, err
	}
	defer f.Close()
	if err := store.Snapshot(ctx, f); err != nil {
		return state.SnapshotInfo{}, err
	}
	if err := f.Sync(); err != nil {
		return state.SnapshotInfo{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return state.SnapshotInfo{}, err
	}
	return state.ReadSnapshot(f, func(state.KV) error { return nil })
}

// copyFolder copies the files of one folder; one that is not there is none.
func copyFolder(from, to, folder string) error {
	files, err := readFolder(from, folder)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return nil
	}
	if err := os.Mkdir(filepath.Join(to, folder), 0o700); err != nil {
		return err
	}
	for path, b := range files {
		if err := atomicfile.WriteNew(filepath.Join(to, path), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// readFolder reads the files of root/folder, by their path below root.
func readFolder(root, folder string) (map[string][]byte, error) {
	entries, err := os.ReadDir(filepath.Join(root, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".new") {
			continue
		}
		path := filepath.Join(folder, e.Name())
		if files[path], err = readSmall(filepath.Join(root, path)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s has more than %d bytes, which no key file has", path, maxKeyFile)
	}
	return b, err
}

// List returns the whole backups in dir, oldest first. A dir that is not there
// has none.
func List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	list := []Info{}
	for _, e := range entries {
		if _, err := time.Parse(nameForm, e.Name()); err != nil || !e.IsDir() {
			continue
		}
		if b, err := describe(filepath.Join(dir, e.Name())); err == nil {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// describe reads what a backup says of itself.
func describe(path string) (Info, error) {
	var i Info
	b, err := readSmall(filepath.Join(path, fileManifest))
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	if err != nil {
		return i, fmt.Errorf("%s is no backup: %w", path, err)
	}
	i.Path = path
	return i, nil
}

// Prune deletes all but the newest keep backups in dir.
func Prune(dir string, keep int) error {
	list, err := List(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range list[:max(0, len(list)-keep)] {
		errs = append(errs, os.RemoveAll(b.Path))
	}
	return errors.Join(errs...)
}
