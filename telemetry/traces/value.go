package traces

import (
	"encoding/binary"
	"errors"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// Values that are neither string nor number, bytes, arrays and maps, are rare
// on spans and are kept in an encoding of their own:
//
//	value  = type:byte payload
//	string, bytes = length:uvarint data
//	int    = zigzag varint     double = 8 bytes little endian     bool = byte
//	array  = count:uvarint value…
//	map    = count:uvarint (length:uvarint key value)…

// maxValueDepth bounds the nesting of what is read back; receivers allow less.
const maxValueDepth = 32

var errBadValue = errors.New("attribute value is malformed")

func appendValue(dst []byte, v wire.Value) []byte {
	dst = append(dst, byte(valueTypes[v.Type]))
	switch v.Type {
	case wire.Str:
		dst = appendString(dst, v.View())
	case wire.Int:
		dst = binary.AppendVarint(dst, v.Int())
	case wire.Double:
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v.Double()))
	case wire.Bool:
		if v.Bool() {
			return append(dst, 1)
		}
		return append(dst, 0)
	case wire.Bytes:
		dst = binary.AppendUvarint(dst, uint64(len(v.Raw())))
		dst = append(dst, v.Raw()...)
	case wire.Array, wire.Map:
		n := uint64(0)
		for range v.Items() {
			n++
		}
		dst = binary.AppendUvarint(dst, n)
		for k, e := range v.Items() {
			if v.Type == wire.Map {
				dst = appendString(dst, k)
			}
			dst = appendValue(dst, e)
		}
	}
	return dst
}

// valueTypes are the numbers of types in this encoding, which are pdata's.
var valueTypes = [...]pcommon.ValueType{
	wire.Empty: pcommon.ValueTypeEmpty, wire.Str: pcommon.ValueTypeStr, wire.Int: pcommon.ValueTypeInt,
	wire.Double: pcommon.ValueTypeDouble, wire.Bool: pcommon.ValueTypeBool, wire.Map: pcommon.ValueTypeMap,
	wire.Array: pcommon.ValueTypeSlice, wire.Bytes: pcommon.ValueTypeBytes,
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// consumeValue decodes one value into v and returns what follows it.
func consumeValue(v pcommon.Value, b []byte, depth int) ([]byte, error) {
	if len(b) == 0 || depth > maxValueDepth {
		return nil, errBadValue
	}
	typ := pcommon.ValueType(b[0])
	r := reader{b: b[1:]}
	switch typ {
	case pcommon.ValueTypeEmpty:
	case pcommon.ValueTypeStr:
		v.SetStr(string(r.bytes()))
	case pcommon.ValueTypeInt:
		v.SetInt(r.varint())
	case pcommon.ValueTypeDouble:
		v.SetDouble(math.Float64frombits(binary.LittleEndian.Uint64(r.take8())))
	case pcommon.ValueTypeBool:
		v.SetBool(r.byte() != 0)
	case pcommon.ValueTypeBytes:
		v.SetEmptyBytes().FromRaw(r.bytes())
	case pcommon.ValueTypeSlice:
		s := v.SetEmptySlice()
		for n := r.count(1); n > 0 && r.err == nil; n-- {
			r.b, r.err = consumeValue(s.AppendEmpty(), r.b, depth+1)
		}
	case pcommon.ValueTypeMap:
		m := v.SetEmptyMap()
		for n := r.count(2); n > 0 && r.err == nil; n-- {
			k := string(r.bytes())
			if r.err == nil {
				r.b, r.err = consumeValue(m.PutEmpty(k), r.b, depth+1)
			}
		}
	default:
		return nil, errBadValue
	}
	return r.b, r.err
}
