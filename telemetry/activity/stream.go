package activity

import (
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// sender is one source of telemetry: a managed node, or an unmanaged process.
// The aggregator's mutex guards it and all below it.
type sender struct {
	id      binnacle.NodeID
	managed bool
	group   binnacle.Group
	info    Sender // LastSeen of all; the rest for the list of unmanaged ones

	processes map[string]*process
	streams   map[uint64]*stream
	targets   map[targetID]*target
	shared    map[sharedID]*target
}

// forgetTargets makes each stream resolve anew where its increases go.
func (s *sender) forgetTargets() {
	s.targets, s.shared = map[targetID]*target{}, map[sharedID]*target{}
	for _, st := range s.streams {
		st.target = nil
	}
}

// process is one life of a sender's program. A worker that drains and its
// successor export side by side, so that intervals are kept apart.
type process struct {
	last int64    // time of the newest point, Unix ns
	gaps [3]int64 // the latest export intervals, ns; 0 is unknown
}

// minLimit is what an increase may span at least and still count as live: three
// of the usual intervals of 10 s. Nodes in a bake export every 2 s and go back to
// 10 without notice.
const minLimit = int64(30 * time.Second)

// unmanagedLimit is the same for a sender whose interval is not known yet:
// three of the SDKs' default of 60 s.
const unmanagedLimit = int64(180 * time.Second)

// maxLimit bounds it: what covers more is no news.
const maxLimit = int64(15 * time.Minute)

// limit returns how much time an increase may span to be live, in ns: three
// export intervals. A longer one is the first after an outage; nobody knows
// when it happened, so that it counts in requests_total only.
func (p *process) limit(managed bool) int64 {
	if p.gaps[0] == 0 {
		if managed {
			return minLimit
		}
		return unmanagedLimit
	}
	return min(max(3*p.interval(), minLimit), maxLimit)
}

// interval returns the export interval, the median of the latest gaps, or 0
// when it is not known yet.
func (p *process) interval() int64 {
	known := 0
	for known < len(p.gaps) && p.gaps[known] != 0 {
		known++
	}
	switch known {
	case 0:
		return 0
	case 1:
		return p.gaps[0]
	case 2:
		return min(p.gaps[0], p.gaps[1])
	}
	g := p.gaps
	slices.Sort(g[:])
	return g[1]
}

// exported notes an export whose newest point is of time t. Exports closer
// than a second are parts of one.
func (p *process) exported(t int64) {
	gap := t - p.last
	if p.last != 0 && gap >= int64(time.Second) {
		p.gaps[2], p.gaps[1], p.gaps[0] = p.gaps[1], p.gaps[0], gap
	}
	p.last = max(p.last, t)
}

// stream is one set of attributes of one metric of one process.
type stream struct {
	point
	sender *sender // nil once it was forgotten, or until the first point
	place  *place  // nil until the first point after a restart
	// target is where increases go while the sender runs revision.
	target   *target
	revision binnacle.Revision
	// seen holds the newest times of a delta stream, by which a point that
	// comes twice is known.
	seen [4]int64
}

// targetID names a target within a sender.
type targetID struct {
	place    *place
	revision binnacle.Revision
}

// sharedID names what all requests of a sender have in common.
type sharedID struct {
	outcome  binnacle.Outcome
	revision binnacle.Revision
}

// target lists what an increase adds to.
type target struct {
	outcome binnacle.Outcome
	keys    []*key
	rollups []*rollup
	fed     int64 // time of the newest point that touched keys and rollups
	// shared is what other targets add to as well; nil is none. A shared one
	// has pending what the batch in work adds.
	shared  *target
	pending *pending
	cluster bool // the cluster's key is among keys
}

// count counts n requests for ever.
func (t *target) count(n uint64) {
	for _, k := range t.keys {
		k.total += n
	}
}

// streamHash identifies a stream within its sender. Attributes count in any
// order. The hash is in the checkpoint, so it must not change between builds.
func streamHash(process, scope, metric string, kind byte, attrs wire.PointAttrs, buf []byte) (uint64, []byte) {
	buf = append(append(append(buf[:0], process...), 0), scope...)
	buf = append(append(append(buf, 0), metric...), 0, kind)
	h := xxhash.Sum64(buf)
	for a := range attrs.All() {
		v := a.Value
		buf = append(append(append(buf[:0], a.Key...), 0), byte(v.Type))
		switch v.Type {
		case wire.Str:
			buf = append(buf, v.View()...)
		case wire.Int:
			buf = appendUint64(buf, uint64(v.Int()))
		case wire.Double:
			buf = appendUint64(buf, math.Float64bits(v.Double()))
		case wire.Bool:
			if v.Int() != 0 {
				buf = append(buf, 1)
			}
		default:
			buf = append(buf, v.View()...)
		}
		h += mix(xxhash.Sum64(buf))
	}
	return mix(h), buf
}

func appendUint64(b []byte, v uint64) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
}

// mix is the finalizer of splitmix64: sums of mixed hashes do not cancel.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
