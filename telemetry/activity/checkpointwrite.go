package activity

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
)

// writer appends the parts of a checkpoint.
type writer struct {
	b      []byte
	strays map[*bounds]uint64 // numbers of layouts that have none of their own
}

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
	b := binary.AppendUvarint(slices.Grow(w.b, (len(n)+1)*binary.MaxVarintLen64), uint64(len(n)))
	for _, c := range n {
		switch { // most are of one to three bytes
		case c < 1<<7:
			b = append(b, byte(c))
		case c < 1<<14:
			b = append(b, byte(c)|0x80, byte(c>>7))
		case c < 1<<21:
			b = append(b, byte(c)|0x80, byte(c>>7)|0x80, byte(c>>14))
		default:
			b = binary.AppendUvarint(b, c)
		}
	}
	w.b = b
}

// encodeLocked writes the checkpoint of the moment at (Unix ns) in b's memory.
func (a *Aggregator) encodeLocked(at int64, b []byte) []byte {
	w := &writer{b: append(b[:0], checkpointMagic...)}
	w.int(at)
	used := slices.Clip(a.layouts.numbered)
	if a.layouts.stray {
		w.strays = map[*bounds]uint64{}
		for _, s := range a.senders {
			for _, st := range s.streams {
				if st.bounds != nil && st.bounds.number == 0 && w.strays[st.bounds] == 0 {
					used = append(used, st.bounds)
					w.strays[st.bounds] = uint64(len(used))
				}
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
		w.sender(s)
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

// layout returns the number of a layout, 0 for none.
func (w *writer) layout(b *bounds) uint64 {
	switch {
	case b == nil:
		return 0
	case b.number > 0:
		return b.number
	}
	return w.strays[b]
}

func (w *writer) sender(s *sender) {
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
		w.uint(w.layout(st.bounds)) // 0 for exponential
		if st.bounds == nil {
			w.int(int64(st.exp))
			w.int(int64(st.offset))
		}
		w.counts(st.n)
		w.int(slices.Max(st.seen[:]))
	}
}
