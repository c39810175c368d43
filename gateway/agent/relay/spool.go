package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// spool keeps exports on disk while the manager is away, the oldest first out,
// in segments of some megabytes:
//
//	<id, 16 hex digits>.seg
//	+------------------------+----------------------------------------------+
//	| "binnacle-spool v1\n"  | record, record, …                            |
//	+------------------------+----------------------------------------------+
//	record
//	+------------+--------------------+-------------------------------------+
//	| length u32 | CRC-32C u32 of the | payload: see appendRecord           |
//	|            | payload            |                                     |
//	+------------+--------------------+-------------------------------------+
//
// all little-endian. A segment is appended to by the process that made it and
// by no later one, and removed as a whole: when all of it was sent, or, oldest
// first, when the spool is full. cursor says how far the oldest one was sent;
// without it, or with a damaged one, some exports are sent twice, which costs
// nothing: their points have times.
//
// A record that the disk damaged is skipped and counted. Bodies that came
// uncompressed are kept and sent as gzip; decoded they are the same bytes.
//
// It is safe for concurrent use; a failed put leaves it as it was.
type spool struct {
	dir string
	max int64
	log *slog.Logger
	m   *spoolMetrics

	mu       sync.Mutex // guards what follows
	segments []*segment // by id; the last one is written to if writing
	writing  bool
	w        *os.File // of the last segment
	r        *os.File // of the first segment
	offset   int64    // of the next record in the first segment
	head     *spooled // what oldest gave last, if it is still there
	cursor   *os.File
	bytes    int64
	count    int
	dirty    bool
	lastSync time.Time
}

type segment struct {
	id    uint64
	size  int64 // of the file, as far as it is whole
	count int   // exports in it that were not sent yet
}

// spooled is an export with its place.
type spooled struct {
	export
	node binnacle.NodeID
	end  int64 // offset behind it
}

type spoolMetrics struct {
	dropped, damaged, errors *metrics.Counter
}

func newSpoolMetrics(set *metrics.Set) *spoolMetrics {
	return &spoolMetrics{
		dropped: set.GetOrCreateCounter("binnacle_agent_spool_dropped_total"),
		damaged: set.GetOrCreateCounter("binnacle_agent_spool_damaged_total"),
		errors:  set.GetOrCreateCounter("binnacle_agent_spool_errors_total"),
	}
}

const (
	spoolMagic  = "binnacle-spool v1\n"
	cursorName  = "cursor"
	cursorBytes = 8 + 8 + 4
	recordHead  = 4 + 4
	// maxRecord bounds a payload: an export and its names.
	maxRecord = maxExport + 64<<10
	// maxSegment is when the next segment is begun. Smaller wastes files, larger
	// drops more at once when the spool is full.
	maxSegment = 4 << 20
	// syncEvery bounds what a power cut takes of the spool. A killed process
	// loses nothing.
	syncEvery = time.Second
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func (s *spool) path(g *segment) string {
	return filepath.Join(s.dir, fmt.Sprintf("%016x.seg", g.id))
}

func (s *spool) removeFile(g *segment) {
	if err := os.Remove(s.path(g)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("a segment of the telemetry spool was not deleted", "file", s.path(g), "err", err)
	}
}

// Put appends e, dropping the oldest segments if there is no room. An error
// means that e is not kept.
func (s *spool) put(e export, node binnacle.NodeID) error {
	b := make([]byte, recordHead, recordHead+256+len(e.body))
	b = appendRecord(b, compressed(e), node)
	binary.LittleEndian.PutUint32(b, uint32(len(b)-recordHead))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[recordHead:], crcTable))
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(b)) > s.max {
		s.m.dropped.Inc()
		return nil // it could not be kept at any time
	}
	s.trimLocked(int64(len(b)))
	g, err := s.writableLocked(int64(len(b)))
	if err == nil {
		_, err = s.w.WriteAt(b, g.size)
	}
	if err != nil {
		s.m.errors.Inc()
		return fmt.Errorf("telemetry spool %s: %w", s.dir, err)
	}
	g.size += int64(len(b))
	g.count++
	s.bytes += int64(len(b))
	s.count++
	s.dirty = true
	return nil
}

// trimLocked drops the oldest segments until n more bytes fit.
func (s *spool) trimLocked(n int64) {
	dropped := 0
	for len(s.segments) > 0 && s.bytes+n > s.max {
		dropped += s.segments[0].count
		s.removeFirstLocked()
	}
	if dropped > 0 {
		s.m.dropped.Add(dropped)
		s.log.Warn("the telemetry spool is full; the oldest exports were dropped", "exports", dropped, "spool_bytes", s.max)
	}
}

// removeFirstLocked removes the oldest segment, sent or not.
func (s *spool) removeFirstLocked() {
	g := s.segments[0]
	s.segments = s.segments[1:]
	s.bytes -= g.size
	s.count -= g.count
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
	if len(s.segments) == 0 && s.writing {
		s.w.Close()
		s.w, s.writing = nil, false
	}
	s.head, s.offset = nil, int64(len(spoolMagic))
	s.removeFile(g)
}

// writableLocked returns the segment to append n bytes to.
func (s *spool) writableLocked(n int64) (*segment, error) {
	if s.writing {
		g := s.segments[len(s.segments)-1]
		if g.size+n <= min(maxSegment, s.max/8) || g.count == 0 && g.size == int64(len(spoolMagic)) {
			return g, nil
		}
		if err := s.w.Sync(); err != nil {
			s.log.Warn("a segment of the telemetry spool was not synced", "err", err)
		}
		s.w.Close()
		s.w, s.writing = nil, false
	}
	g := &segment{id: uint64(time.Now().UnixNano()), size: int64(len(spoolMagic))}
	if k := len(s.segments); k > 0 {
		g.id = max(g.id, s.segments[k-1].id+1) // whatever the clock did
	}
	f, err := os.OpenFile(s.path(g), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(spoolMagic); err != nil {
		f.Close()
		s.removeFile(g)
		return nil, err
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		s.log.Warn("the folder of the telemetry spool was not synced", "err", err)
	}
	s.segments = append(s.segments, g)
	s.bytes += g.size
	s.w, s.writing = f, true
	return g, nil
}

// size returns how much waits: exports, and bytes on disk.
func (s *spool) size() (exports int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.bytes
}

// syncIfDue brings to the disk what is due, and says when the next time is;
// zero for never.
func (s *spool) syncIfDue(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty || s.w == nil {
		return time.Time{}
	}
	if due := s.lastSync.Add(syncEvery); now.Before(due) {
		return due
	}
	s.syncLocked()
	s.lastSync = now
	return time.Time{}
}

func (s *spool) syncLocked() {
	if s.w == nil {
		return
	}
	if err := s.w.Sync(); err != nil {
		s.m.errors.Inc()
		s.log.Warn("the telemetry spool was not synced to disk", "err", err)
	}
	s.dirty = false
}

// Close syncs and closes the files. What waits stays for the next run.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.syncLocked()
	for _, f := range []*os.File{s.w, s.r, s.cursor} {
		if f != nil {
			f.Close()
		}
	}
	s.w, s.r, s.writing = nil, nil, false
}
