package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// metaFile keeps what is known of each metric over restarts, in the store's
// directory: the series of a sender that is gone still have a type, and the
// virtual classic names of its histograms can be found. It may be lost without
// harm: senders tell it all again.
const metaFile = "metadata.json"

// maxMetaBytes bounds what is read of a metaFile: more than the names, with
// their help, can make.
const maxMetaBytes = 256 << 20

// load reads the file in dir; what cannot be read is an error, and nothing is
// known then.
func (m *metaStore) load(dir string) error {
	f, err := os.Open(filepath.Join(dir, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	var list map[string][]Metadata
	if err := json.NewDecoder(io.LimitReader(f, maxMetaBytes)).Decode(&list); err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	for name, ds := range list {
		for _, d := range ds {
			m.put(name, d)
		}
	}
	m.changed.Store(false)
	return nil
}

// save writes the file in dir if there is something new.
func (m *metaStore) save(dir string) error {
	if !m.changed.Swap(false) {
		return nil
	}
	m.mu.RLock()
	b, err := json.Marshal(m.m)
	m.mu.RUnlock()
	if err == nil {
		err = atomicfile.Write(filepath.Join(dir, metaFile), b, 0o600)
	}
	if err != nil {
		m.changed.Store(true)
		return fmt.Errorf("keep the metadata of metrics: %w", err)
	}
	return nil
}

// keep forgets the names that has does not know, but for those learned since
// the last call: so names that were only ever refused, or whose last series
// went with the retention, leave room for others.
func (m *metaStore) keep(has map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.m {
		if !m.fresh[name] && !m.ours[name] && !has[name] && !has[name+"_count"] { // a histogram stored classic has no series of its own name
			delete(m.m, name)
			m.changed.Store(true)
		}
	}
	clear(m.fresh)
}

// sweepMeta brings the metadata in line with the stored names, and to disk.
func (s *Store) sweepMeta() {
	q, err := s.db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		s.log.Warn("the names of stored metrics cannot be read", "error", err)
		return
	}
	names, _, err := q.LabelValues(context.Background(), nameLabel, nil)
	if err = errors.Join(err, q.Close()); err != nil {
		s.log.Warn("the names of stored metrics cannot be read", "error", err)
		return
	}
	has := make(map[string]bool, len(names))
	for _, n := range names {
		has[n] = true
	}
	s.meta.keep(has)
	s.saveMeta()
}

func (s *Store) saveMeta() {
	if s.space.readOnly() {
		return // the space is others'
	}
	if err := s.meta.save(s.opts.Dir); err != nil {
		s.log.Warn("metadata not kept: metrics without a living sender will have no type after a restart", "error", err)
	}
}
