package activity

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// The checkpoint holds, of one moment, the totals, the last point of each
// stream and the value of each roll-up. Because OTLP points are cumulative, the
// next point of a stream tells all that happened since, however long the
// manager was away: totals are exact even if the checkpoint is not the newest.
//
// The file is written beside and renamed, so that it is whole or the one
// before:
//
//	"binnacle-activity-2\n" (in 1, roll-ups do not say how coarse they are)
//	varint   time, Unix ns
//	layouts  uvarint count, then each: uvarint n, n float64
//	senders  uvarint count, then each with its processes and streams
//	keys     uvarint count, then each: id, total, last fed
//	roll-ups uvarint count, then each: id, value, when written
//	crc32c   of all before, 4 bytes little-endian
const (
	checkpointFile   = "activity.checkpoint"
	checkpointMagic  = "binnacle-activity-2\n"
	checkpointMagic1 = "binnacle-activity-1\n" // of the same length
	// maxCheckpoint bounds what is read back: a million streams are some 150 MB.
	maxCheckpoint = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCheckpoint is wrapped by whatever is wrong with a checkpoint.
var errCheckpoint = errors.New("the checkpoint is damaged")

// checkpoint is the decoded file.
type checkpoint struct {
	at      int64
	senders []*sender
	keys    []*key
	rollups []*rollup
}

// restore reads the checkpoint, if there is one.
func (a *Aggregator) restore() error {
	path := filepath.Join(a.o.Dir, checkpointFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore the activity: %w", err)
	}
	var c *checkpoint
	if info.Size() > maxCheckpoint {
		err = fmt.Errorf("%w: it has %d bytes, more than any checkpoint", errCheckpoint, info.Size())
	} else {
		var b []byte
		if b, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("restore the activity: %w", err)
		}
		c, err = decodeCheckpoint(b)
	}
	if err != nil {
		aside := path + ".damaged-" + a.started.UTC().Format("20060102T150405Z")
		if rerr := os.Rename(path, aside); rerr != nil {
			return fmt.Errorf("put the damaged activity checkpoint aside: %w", rerr)
		}
		a.log.Error("the activity checkpoint is damaged: it was put aside, and requests_total counts from what nodes report now", "file", aside, "err", err)
		return nil
	}
	a.adopt(c)
	a.log.Info("activity restored", "time", time.Unix(0, c.at).UTC(), "senders", len(a.senders), "streams", a.streams)
	return nil
}

func (a *Aggregator) adopt(c *checkpoint) {
	a.restored = c.at
	for _, s := range c.senders {
		a.senders[s.id] = s
		a.streams += len(s.streams)
		for _, st := range s.streams {
			if st.bounds != nil { // share them with what comes in
				st.bounds, _ = a.layouts.of(st.bounds.upper)
			}
		}
	}
	for _, k := range c.keys {
		k2 := a.keys.make(k.id)
		k2.total, k2.lastFed = k.total, k.lastFed
	}
	for _, r := range c.rollups {
		a.rollups[r.id] = r
	}
}

// save replaces the checkpoint by b, durably.
func (a *Aggregator) save(b []byte) error {
	if err := atomicfile.Write(filepath.Join(a.o.Dir, checkpointFile), b, 0o600); err != nil {
		return fmt.Errorf("keep the activity checkpoint: %w", err)
	}
	return nil
}
