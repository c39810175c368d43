package traces

import (
	"encoding/binary"
	"errors"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Keys in Pebble. The partition, the hour in which spans came, stands first, so
// that an hour is one range, and files of the store have whole hours:
//
//	+-----------+------+
//	| partition | kind | …
//	| 4, hours  | 1    |
//	+-----------+------+
//	  'b' seq:4            -> block
//	  's' seq:4            -> summary
//	  'i' page:1 seq:4     -> page of the block's index
//	  'd' seq:4            -> classes of durations, one byte for each row
//	  't' trace hash:8     -> seq:4 seq:4 … (merged by concatenation)
//	  'o' kind service name -> nothing
//	  'm'                  -> earliest and latest start:8 8
//	  'u' seq:4            -> block that waits for the verdict of sampling
//	  'p' seq:4            -> small block that waits for others to be merged with
//
// All numbers are big endian. seq numbers the blocks of the store, rising, and each kind of
// those that wait. They stand in the hour in which they came, not in a place of their own:
// files of the store that have a place of their own and this hour reach over all hours
// between, and compactions rewrite those.
const (
	kindBlock     = 'b'
	kindDurations = 'd'
	kindIndex     = 'i'
	kindBounds    = 'm'
	kindOp        = 'o'
	kindPart      = 'p'
	kindSummary   = 's'
	kindTrace     = 't'
	kindUndecided = 'u'
	kindAfterAll  = 0xff
)

// partition is an hour since 1970.
type partition uint32

func key(p partition, kind byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 16), uint32(p)), kind)
}

func seqKey(p partition, kind byte, seq uint32) []byte {
	return binary.BigEndian.AppendUint32(key(p, kind), seq)
}

func indexKey(p partition, page byte, seq uint32) []byte {
	return binary.BigEndian.AppendUint32(append(key(p, kindIndex), page), seq)
}

func traceKey(p partition, hash uint64) []byte {
	return binary.BigEndian.AppendUint64(key(p, kindTrace), hash)
}

// traceHash halves a trace id for the index: eight bytes are as good as
// unique, and what is found is checked against the block. Multiplying keeps
// ids apart that are random in one half only.
func traceHash(id pcommon.TraceID) uint64 {
	return binary.BigEndian.Uint64(id[:8])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(id[8:])
}

func opsKey(p partition, service string, op Operation) []byte {
	k := key(p, kindOp)
	return append(appendString(appendString(k, op.Kind), service), op.Name...)
}

var errBadKey = errors.New("key is malformed")

// parseKey splits a key into its partition, kind and rest.
func parseKey(k []byte) (partition, byte, []byte, error) {
	if len(k) < 5 {
		return 0, 0, nil, errBadKey
	}
	return partition(binary.BigEndian.Uint32(k)), k[4], k[5:], nil
}

func parseOp(rest []byte) (service string, op Operation, err error) {
	r := reader{b: rest}
	op.Kind = string(r.bytes())
	service = string(r.bytes())
	op.Name = string(r.b)
	return service, op, r.err
}
