package traces

import (
	"encoding/binary"
	"math"
)

// A summary says what a search needs to know of a block before it reads it:
//
//	summary = minStart:8 maxStart:8 (big endian) spans:uvarint complete:byte
//	          operations:uvarint (service:string name:string kind:byte
//	          minDuration:uvarint maxDuration:uvarint)…
//
// Times are Unix nanoseconds, durations nanoseconds.
type summary struct {
	minStart, maxStart uint64
	spans              uint64
	// complete is false where the block has more operations than fit: then
	// ops proves nothing.
	complete bool
	ops      []opSummary
}

type opSummary struct {
	service, name string
	kind          uint8
	opStat
}

// maxSummaryOps bounds the operations of a summary. A sender that puts ids
// into span names makes every block match by name, not the index huge.
const maxSummaryOps = 512

func summarize(b *block) summary {
	s := summary{minStart: b.minStart, maxStart: b.maxStart, spans: uint64(len(b.spans)), complete: len(b.ops) <= maxSummaryOps}
	if !s.complete {
		return s
	}
	for k, st := range b.ops {
		s.ops = append(s.ops, opSummary{b.strs.list[k.service], b.strs.list[k.name], k.kind, st})
	}
	return s
}

func (s *summary) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, s.minStart)
	out = binary.BigEndian.AppendUint64(out, s.maxStart)
	out = binary.AppendUvarint(out, s.spans)
	if s.complete {
		out = append(out, 1)
	} else {
		out = append(out, 0)
	}
	out = binary.AppendUvarint(out, uint64(len(s.ops)))
	for _, op := range s.ops {
		out = appendString(appendString(out, op.service), op.name)
		out = append(out, op.kind)
		out = binary.AppendUvarint(out, op.minDuration)
		out = binary.AppendUvarint(out, op.maxDuration)
	}
	return out
}

// summaryTimes reads only the times, which decide most cases.
func summaryTimes(b []byte) (minStart, maxStart uint64) {
	if len(b) < 16 {
		return 0, math.MaxUint64 // malformed: let it be decoded, and complained about
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}

// summaryReader reads a summary without copying what it says.
type summaryReader struct {
	spans    int
	complete bool
	left     int // operations
	r        reader

	// Of the operation that next has read.
	service, name []byte
	kind          byte
	op            opStat
}

func readSummary(b []byte) summaryReader {
	s := summaryReader{r: reader{b: b}}
	s.r.take(16)
	s.spans = int(min(s.r.uvarint(), maxPacked))
	s.complete = s.r.byte() == 1
	s.left = s.r.count(5)
	return s
}

// next reads the next operation and reports whether there is one.
func (s *summaryReader) next() bool {
	if s.left == 0 {
		return false
	}
	s.left--
	s.service, s.name, s.kind = s.r.bytes(), s.r.bytes(), s.r.byte()
	s.op.minDuration, s.op.maxDuration = s.r.uvarint(), s.r.uvarint()
	return s.r.err == nil
}

func decodeSummary(b []byte) (summary, error) {
	in := readSummary(b)
	var s summary
	s.minStart, s.maxStart = summaryTimes(b)
	s.spans, s.complete = uint64(in.spans), in.complete
	for in.next() {
		s.ops = append(s.ops, opSummary{string(in.service), string(in.name), in.kind, in.op})
	}
	return s, in.r.err
}
