package activity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
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

type writer struct{ b []byte }

func (w *writer) uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)   { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) float(v float64) {
	w.b = binary.LittleEndian.AppendUint64(w.b, math.Float64bits(v))
}
func (w *writer) str(s string) {
	w.uint(uint64(len(s)))
	w.b = append(w.b, s...)
}
func (w *writer) bool(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}
func (w *writer) counts(n []uint64) {
	w.uint(uint64(len(n)))
	for _, c := range n {
		w.uint(c)
	}
}

// encodeLocked writes the checkpoint of the moment at (Unix ns) in b's memory.
func (a *Aggregator) encodeLocked(at int64, b []byte) []byte {
	w := &writer{append(b[:0], checkpointMagic...)}
	w.int(at)
	numbers := map[*bounds]uint64{}
	var used []*bounds
	for _, s := range a.senders {
		for _, st := range s.streams {
			if st.bounds != nil && numbers[st.bounds] == 0 {
				used = append(used, st.bounds)
				numbers[st.bounds] = uint64(len(used))
			}
		}
	}
	w.uint(uint64(len(used)))
	for _, b := range used {
		w.uint(uint64(len(b.upper)))
		for _, u := range b.upper {
			w.float(u)
		}
	}
	w.uint(uint64(len(a.senders)))
	for _, s := range a.senders {
		w.sender(s, numbers)
	}
	w.uint(uint64(len(a.keys.byID)))
	for id, k := range a.keys.byID {
		w.b = append(w.b, byte(id.kind))
		w.str(string(id.node))
		w.str(string(id.backend))
		w.str(string(id.group))
		w.str(id.method)
		w.str(id.route)
		w.uint(uint64(id.revision))
		w.uint(k.total)
		w.int(k.lastFed)
	}
	w.uint(uint64(len(a.rollups)))
	for id, r := range a.rollups {
		w.b = append(w.b, byte(id.kind), byte(id.outcome))
		w.bool(id.managed)
		w.str(string(id.group))
		w.uint(uint64(id.revision))
		w.str(string(id.node))
		w.str(id.method)
		w.str(id.route)
		w.str(id.address)
		w.uint(uint64(id.port))
		w.uint(r.cum.count)
		w.float(r.cum.sum)
		w.uint(r.cum.zero)
		w.b = append(w.b, r.cum.coarser)
		w.int(int64(r.cum.base))
		w.counts(r.cum.n)
		w.int(r.wrote)
		w.int(r.fed)
		w.int(r.life)
		w.bool(r.ended)
	}
	return binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(w.b, castagnoli))
}

func (w *writer) sender(s *sender, layouts map[*bounds]uint64) {
	w.str(string(s.id))
	w.bool(s.managed)
	w.str(string(s.group))
	w.str(s.info.Service)
	w.str(s.info.Version)
	w.str(s.info.Peer)
	w.bool(s.info.Gateway)
	w.int(s.info.LastSeen.UnixNano())
	w.uint(uint64(len(s.processes)))
	for id, p := range s.processes {
		w.str(id)
		w.int(p.last)
		for _, g := range p.gaps {
			w.int(g)
		}
	}
	w.uint(uint64(len(s.streams)))
	for hash, st := range s.streams {
		w.b = appendUint64(w.b, hash)
		w.int(st.start)
		w.int(st.t)
		w.float(st.sum)
		w.uint(st.zero)
		w.uint(layouts[st.bounds]) // 0 for exponential
		if st.bounds == nil {
			w.int(int64(st.exp))
			w.int(int64(st.offset))
		}
		w.counts(st.n)
		w.int(slices.Max(st.seen[:]))
	}
}

// reader reads what writer wrote. After the first error it reads zeros.
type reader struct {
	b       []byte
	version int
	err     error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errCheckpoint, what)
	}
	r.b = nil
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("it ends within a number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("it ends within a number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if uint64(len(r.b)) < n {
		r.fail("it ends within a field")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) fixed() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (r *reader) float() float64 {
	v := math.Float64frombits(r.fixed())
	if math.IsNaN(v) || math.IsInf(v, 0) {
		r.fail("a number is not finite")
		return 0
	}
	return v
}

func (r *reader) byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) bool() bool { return r.byte() == 1 }

func (r *reader) str() string {
	n := r.uint()
	if n > 1<<16 {
		r.fail("a text is too long")
		return ""
	}
	return string(r.take(n))
}

// len reads a count of things of at least size bytes each, so that a count
// cannot ask for more memory than the file is long.
func (r *reader) len(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail("a count is larger than the rest of the file")
		return 0
	}
	return int(n)
}

func (r *reader) counts() []uint64 {
	n := make([]uint64, r.len(1))
	for i := range n {
		n[i] = r.uint()
	}
	return n
}

// decodeCheckpoint reads a file's bytes.
func decodeCheckpoint(b []byte) (*checkpoint, error) {
	version := 2
	switch {
	case len(b) < len(checkpointMagic)+4:
		return nil, fmt.Errorf("%w: it has only %d bytes", errCheckpoint, len(b))
	case string(b[:len(checkpointMagic)]) == checkpointMagic:
	case string(b[:len(checkpointMagic)]) == checkpointMagic1:
		version = 1
	default:
		return nil, fmt.Errorf("%w: it does not begin with %q", errCheckpoint, checkpointMagic)
	}
	body, tail := b[:len(b)-4], b[len(b)-4:]
	if got, want := crc32.Checksum(body, castagnoli), binary.LittleEndian.Uint32(tail); got != want {
		return nil, fmt.Errorf("%w: its checksum is %08x and should be %08x", errCheckpoint, got, want)
	}
	return decodeBody(version, body[len(checkpointMagic):])
}

func decodeBody(version int, b []byte) (*checkpoint, error) {
	r := &reader{b: b, version: version}
	c := &checkpoint{at: r.int()}
	layouts := make([]*bounds, r.len(1))
	for i := range layouts {
		upper := make([]float64, r.len(8))
		for j := range upper {
			upper[j] = r.float()
		}
		b, ok := newBounds(upper)
		if !ok && r.err == nil {
			r.fail("bounds are not in order")
		}
		layouts[i] = b
	}
	for range r.len(12) {
		c.senders = append(c.senders, r.sender(layouts))
	}
	for range r.len(9) {
		k := &key{}
		k.id.kind = kind(r.byte())
		if k.id.kind >= numKinds {
			r.fail("a key is of no kind")
		}
		k.id.node = binnacle.NodeID(r.str())
		k.id.backend = binnacle.BackendID(r.str())
		k.id.group = binnacle.Group(r.str())
		k.id.method, k.id.route = r.str(), r.str()
		k.id.revision = binnacle.Revision(r.uint())
		k.total, k.lastFed = r.uint(), r.int()
		c.keys = append(c.keys, k)
	}
	for range r.len(20) {
		c.rollups = append(c.rollups, r.rollup())
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("there is more than belongs to it")
	}
	if r.err != nil {
		return nil, r.err
	}
	return c, nil
}

func (r *reader) sender(layouts []*bounds) *sender {
	s := &sender{processes: map[string]*process{}, streams: map[uint64]*stream{}}
	s.id = binnacle.NodeID(r.str())
	s.managed = r.bool()
	s.group = binnacle.Group(r.str())
	s.info = Sender{ID: s.id, Service: r.str(), Version: r.str(), Peer: r.str(), Gateway: r.bool()}
	s.info.LastSeen = time.Unix(0, r.int()).UTC()
	for range r.len(5) {
		id, p := r.str(), &process{last: r.int()}
		for i := range p.gaps {
			p.gaps[i] = max(0, r.int())
		}
		s.processes[id] = p
	}
	for range r.len(22) {
		hash, st := r.fixed(), &stream{}
		st.start, st.t, st.sum, st.zero = r.int(), r.int(), r.float(), r.uint()
		layout := r.uint()
		switch {
		case layout == 0:
			exp, offset := r.int(), r.int()
			if exp < minScale || exp > scale || offset < math.MinInt32 || offset > math.MaxInt32-maxBuckets {
				r.fail("a scale or an offset is out of range")
			}
			st.exp, st.offset = int8(exp), int32(offset)
		case layout > uint64(len(layouts)):
			r.fail("a layout is not there")
		default:
			st.bounds = layouts[layout-1]
		}
		st.n = r.counts()
		if len(st.n) > maxBuckets || st.bounds != nil && len(st.n) != len(st.bounds.upper)+1 {
			r.fail("a stream has the wrong number of buckets")
		}
		seen := r.int()
		for i := range st.seen { // nothing older is accepted: it may have been seen
			st.seen[i] = seen
		}
		s.streams[hash] = st
	}
	return s
}

func (r *reader) rollup() *rollup {
	p := &rollup{}
	p.id.kind, p.id.outcome = rollupKind(r.byte()), binnacle.Outcome(r.byte())
	if p.id.kind >= numRollups || p.id.outcome >= binnacle.NumOutcomes {
		r.fail("a roll-up is of no kind")
	}
	p.id.managed = r.bool()
	p.id.group = binnacle.Group(r.str())
	p.id.revision = binnacle.Revision(r.uint())
	p.id.node = binnacle.NodeID(r.str())
	p.id.method, p.id.route, p.id.address = r.str(), r.str(), r.str()
	p.id.port = int(r.uint() & math.MaxUint16)
	p.cum.count, p.cum.sum, p.cum.zero = r.uint(), r.float(), r.uint()
	if r.version > 1 {
		p.cum.coarser = r.byte()
	}
	base := r.int()
	p.cum.n = r.counts()
	if c := p.cum.coarser; c > maxCoarser || base < minIndex>>c || base+int64(len(p.cum.n)) > (maxIndex+1)>>c || !p.cum.whole(int(base)) {
		r.fail("a roll-up's buckets are out of range")
	}
	p.cum.base = int(base)
	p.wrote, p.fed, p.life, p.ended = r.int(), r.int(), r.int(), r.bool()
	if r.err == nil {
		p.series = &RollupSeries{Labels: p.id.labels()}
	}
	return p
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
