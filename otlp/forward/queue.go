package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// record is one request on its way.
type record struct {
	items uint32 // data points or spans
	body  []byte // OTLP in protobuf, gzip
}

// The queue on disk is a folder of segments, each a run of records:
//
//	+----------+-----------------------+---------+------+
//	| length:4 | CRC-32C of the rest:4 | items:4 | body |
//	+----------+-----------------------+---------+------+
//
// Numbers are big endian; length counts items and body. The file
// "position" holds the segment and offset up to which all was sent, 8 bytes each.
const (
	headerBytes  = 8
	prefixBytes  = 4
	segmentBytes = 4 << 20
	// maxRecord bounds what a length may say: the largest request by far.
	maxRecord = 128 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// queue is a bounded first-in-first-out queue of records that survives the
// process. Its methods are safe for concurrent use by one writer and one reader.
type queue struct {
	dir   string
	limit int64 // bytes

	mu       sync.Mutex
	segments []segment // in order; the last one is being written
	out      *os.File  // the last segment
	at       position  // of the next record to read
	saved    position  // on disk
}

type segment struct {
	seq    uint64
	size   int64 // synced
	unsent int64 // items
}

type position struct {
	seq    uint64
	offset int64
}

// openQueue opens or makes the queue in dir, of at most limit bytes.
func openQueue(dir string, limit int64) (*queue, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	q := &queue{dir: dir, limit: limit}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var seq uint64
		if _, err := fmt.Sscanf(e.Name(), "%016x.queue", &seq); err != nil || e.Name() != segmentName(seq) {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return nil, err
		}
		q.segments = append(q.segments, segment{seq: seq, size: fi.Size()})
	}
	slices.SortFunc(q.segments, func(a, b segment) int { return int(int64(a.seq) - int64(b.seq)) })
	q.at = q.loadPosition()
	q.saved = q.at
	for i := range q.segments {
		s := &q.segments[i]
		from := int64(0)
		if s.seq == q.at.seq {
			from = q.at.offset
		}
		if s.seq >= q.at.seq {
			s.unsent = countItems(q.path(s.seq), from, s.size)
		}
	}
	next := uint64(1)
	if n := len(q.segments); n > 0 {
		next = q.segments[n-1].seq + 1
		q.at.seq = max(q.at.seq, q.segments[0].seq)
	}
	// What a crash tore is never written on: a new segment begins.
	return q, q.begin(next)
}

func segmentName(seq uint64) string { return fmt.Sprintf("%016x.queue", seq) }

func (q *queue) path(seq uint64) string { return filepath.Join(q.dir, segmentName(seq)) }

func (q *queue) loadPosition() (p position) {
	b, err := os.ReadFile(filepath.Join(q.dir, "position"))
	if err != nil || len(b) != 16 {
		return position{} // begin at the oldest: some are sent twice
	}
	p.seq = binary.BigEndian.Uint64(b)
	p.offset = int64(binary.BigEndian.Uint64(b[8:]) &^ (1 << 63))
	return p
}

// begin starts a segment.
func (q *queue) begin(seq uint64) error {
	f, err := os.OpenFile(q.path(seq), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if q.out != nil {
		_ = q.out.Close() // synced already
	}
	q.out = f
	q.segments = append(q.segments, segment{seq: seq})
	return nil
}

// append writes records, synced, and drops the oldest segments where they need
// their room. It returns the number of items dropped. After an error none of
// the records is in the queue.
func (q *queue) append(records []record) (dropped int64, err error) {
	var b []byte
	var items int64
	for _, r := range records {
		b = appendRecord(b, r)
		items += int64(r.items)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if full := q.segments[len(q.segments)-1]; full.size >= segmentBytes {
		if err := q.begin(full.seq + 1); err != nil {
			return 0, err
		}
	}
	last := &q.segments[len(q.segments)-1]
	_, err = q.out.WriteAt(b, last.size)
	if err == nil {
		err = q.out.Sync()
	}
	if err != nil {
		return 0, err // what is there already, the next write goes over
	}
	last.size += int64(len(b))
	last.unsent += items
	for q.bytesLocked() > q.limit && len(q.segments) > 1 {
		dropped += q.removeFirstLocked()
	}
	return dropped, nil
}

func appendRecord(b []byte, r record) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(prefixBytes+len(r.body)))
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.items)
	b = append(b, r.body...)
	binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:], castagnoli))
	return b
}

func (q *queue) bytesLocked() (n int64) {
	for _, s := range q.segments {
		n += s.size
	}
	return n
}

func (q *queue) bytes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytesLocked()
}

// items returns how many items were not sent yet, as far as this process knows.
func (q *queue) items() (n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.segments {
		n += s.unsent
	}
	return n
}

// removeFirstLocked deletes the oldest segment and returns how many items in it
// were not sent, as far as this process knows.
func (q *queue) removeFirstLocked() int64 {
	s := q.segments[0]
	q.segments = q.segments[1:]
	_ = os.Remove(q.path(s.seq)) // what stays is found at the next start
	if q.at.seq <= s.seq {
		q.at = position{seq: q.segments[0].seq}
	}
	return s.unsent
}

// errDamaged says that a record cannot be read.
var errDamaged = errors.New("segment is damaged")

// damage is the error of a segment that is left out from a record on.
type damage struct {
	lost int64 // items, as far as can be told
	err  error
}

func (d *damage) Error() string { return d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

// next reads the oldest record that was not sent. ok is false where there is
// none. advance goes past it; until then next returns the same one. A segment
// that is damaged is left from the damage on and named in the error, a *damage.
func (q *queue) next() (r record, after position, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		first := q.segments[0]
		if q.at.seq < first.seq {
			q.at = position{seq: first.seq}
		}
		i := slices.IndexFunc(q.segments, func(s segment) bool { return s.seq == q.at.seq })
		if i < 0 {
			q.at = position{seq: first.seq}
			continue
		}
		s := &q.segments[i]
		if q.at.offset < s.size {
			r, n, err := readRecord(q.path(s.seq), q.at.offset, s.size)
			if err != nil {
				lost := s.unsent
				s.unsent, q.at.offset = 0, s.size
				return record{}, q.at, false, &damage{lost, fmt.Errorf("%s: %w", q.path(s.seq), err)}
			}
			return r, position{s.seq, q.at.offset + n}, true, nil
		}
		if i == len(q.segments)-1 {
			return record{}, q.at, false, nil
		}
		// All of it was sent.
		q.at = position{seq: q.segments[i+1].seq}
		for q.segments[0].seq < q.at.seq {
			q.removeFirstLocked()
		}
	}
}

func readRecord(path string, offset, size int64) (record, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return record{}, 0, err
	}
	defer f.Close()
	return parseRecord(io.NewSectionReader(f, offset, size-offset))
}

// countItems counts the items of the records from an offset on, as far as they
// can be told apart.
func countItems(path string, offset, size int64) (items int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	var head [headerBytes + prefixBytes]byte
	for offset < size {
		if _, err := f.ReadAt(head[:], offset); err != nil {
			return items
		}
		items += int64(binary.BigEndian.Uint32(head[headerBytes:]))
		offset += headerBytes + int64(binary.BigEndian.Uint32(head[:]))
	}
	return items
}

func parseRecord(r io.Reader) (record, int64, error) {
	var head [headerBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return record{}, 0, errDamaged
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < prefixBytes || n > maxRecord {
		return record{}, 0, errDamaged
	}
	// Grows with what is there, not with what the length says.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil || len(b) != int(n) || crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return record{}, 0, errDamaged
	}
	return record{items: binary.BigEndian.Uint32(b), body: b[prefixBytes:]}, int64(headerBytes) + int64(n), nil
}

// advance says that all before p was dealt with.
func (q *queue) advance(p position, r record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.seq < q.at.seq || p.seq == q.at.seq && p.offset <= q.at.offset {
		return // its segment was dropped meanwhile
	}
	q.at = p
	if i := slices.IndexFunc(q.segments, func(s segment) bool { return s.seq == p.seq }); i >= 0 {
		q.segments[i].unsent -= int64(r.items)
	}
}

// savePosition makes the next start go on where this process is. It is not
// synced: after a power failure some requests are sent twice.
func (q *queue) savePosition() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.at
	if at == q.saved {
		return nil
	}
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, at.seq), uint64(at.offset))
	path := filepath.Join(q.dir, "position")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	q.saved = at
	return nil
}

func (q *queue) close() error {
	err := q.savePosition()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err2 := q.out.Close(); err2 != nil && !errors.Is(err2, fs.ErrClosed) {
		err = errors.Join(err, err2)
	}
	return err
}
