package activity

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/binnacle-project/binnacle"
)

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
