package wire

import (
	"iter"
	"math"
	"strconv"
	"strings"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"
)

// Attr is one attribute. Its strings are views.
type Attr struct {
	Key   string
	Value Value
	raw   []byte // the KeyValue message; nil for one that was set here
}

// ValueType is the type of an attribute's value.
type ValueType uint8

// The types of values. The numbers are part of what activity keeps on disk.
const (
	Empty ValueType = iota
	Str
	Int
	Double
	Bool
	Map
	Array
	Bytes
)

// Value is the value of an attribute.
type Value struct {
	Type ValueType
	num  uint64 // of bools, ints and doubles
	data string // of strings; of Bytes, Array and Map the AnyValue message
}

// StrValue returns s as a value.
func StrValue(s string) Value { return Value{Type: Str, data: s} }

// Int returns the value of an Int.
func (v Value) Int() int64 { return int64(v.num) }

// Double returns the value of a Double.
func (v Value) Double() float64 { return math.Float64frombits(v.num) }

// Bool returns the value of a Bool.
func (v Value) Bool() bool { return v.num != 0 }

// View returns v as text, as String does. That of a Str shares the memory of
// the request; only those of other types are built.
func (v Value) View() string {
	switch v.Type {
	case Str:
		return v.data
	case Bool:
		return strconv.FormatBool(v.num != 0)
	case Int:
		return strconv.FormatInt(int64(v.num), 10)
	case Empty:
		return ""
	}
	return asPdata(v)
}

// String returns v as text of its own: numbers as JSON has them, bytes in
// base64, arrays and maps as JSON.
func (v Value) String() string { return strings.Clone(v.View()) }

// asPdata lets pdata write out a value of the types that are rare: it has the
// rules for them, and there is no way to it but by a request.
func asPdata(v Value) string {
	b := []byte(v.data)
	if v.Type == Double {
		b = protowire.AppendFixed64(protowire.AppendTag(nil, 4, protowire.Fixed64Type), v.num)
	}
	for _, field := range []protowire.Number{2, 1, 1, 1} { // KeyValue, Resource, ResourceMetrics, request
		b = protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), b)
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		return "" // Read took only what pdata takes
	}
	for _, value := range req.Metrics().ResourceMetrics().At(0).Resource().Attributes().All() {
		return value.AsString()
	}
	return ""
}

// Raw returns what a value of type Bytes holds, a view.
func (v Value) Raw() []byte {
	if v.Type != Bytes {
		return nil
	}
	b, next := bytesAt(unsafe.Slice(unsafe.StringData(v.data), len(v.data)), 1)
	if next < 0 {
		return nil
	}
	return b
}

// Items yields the values of an Array, with empty keys, or of a Map, in order.
func (v Value) Items() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Type != Array && v.Type != Map {
			return
		}
		list, next := bytesAt(unsafe.Slice(unsafe.StringData(v.data), len(v.data)), 1)
		for i := 0; next >= 0 && i < len(list); {
			var item []byte
			if item, next = bytesAt(list, i+1); next < 0 {
				return
			}
			i = next
			a := Attr{}
			var ok bool
			if v.Type == Map {
				a, ok = parseAttr(item)
			} else {
				a.Value, ok = parseValue(item)
			}
			if !ok || !yield(a.Key, a.Value) {
				return
			}
		}
	}
}

// Attrs are the attributes of a resource, in the order they came. A key may
// stand twice; the first counts.
type Attrs []Attr

// Get returns the value of a key.
func (a Attrs) Get(key string) (Value, bool) {
	for i := range a {
		if a[i].Key == key {
			return a[i].Value, true
		}
	}
	return Value{}, false
}

// Put sets a key to a string.
func (a *Attrs) Put(key, value string) {
	for i := range *a {
		if (*a)[i].Key == key {
			(*a)[i] = Attr{Key: key, Value: StrValue(value)}
			return
		}
	}
	*a = append(*a, Attr{Key: key, Value: StrValue(value)})
}

// PointAttrs are the attributes of a point, span, event, link or scope as they
// came: KeyValue messages, one after the other, each with its tag.
type PointAttrs []byte

// All yields the attributes in order.
func (p PointAttrs) All() iter.Seq[Attr] {
	return func(yield func(Attr) bool) {
		for i := 0; i < len(p); {
			kv, next := bytesAt(p, i+1) // the tag has one byte
			if next < 0 {
				return
			}
			i = next
			if a, ok := parseAttr(kv); !ok || !yield(a) {
				return
			}
		}
	}
}

// Get returns the value of a key, the first where it stands twice.
func (p PointAttrs) Get(key string) (Value, bool) {
	for a := range p.All() {
		if a.Key == key {
			return a.Value, true
		}
	}
	return Value{}, false
}

// parseAttr reads a KeyValue message that was checked before.
func parseAttr(kv []byte) (a Attr, ok bool) {
	a.raw = kv
	if key, value, plain := plainParts(kv); plain {
		a.Key = key
		a.Value, ok = parseValue(value)
		return a, ok
	}
	for i := 0; i < len(kv); {
		if kv[i] == tagKeyIndex {
			if _, i = varint(kv, i+1); i < 0 {
				return a, false
			}
			continue
		}
		v, next := bytesAt(kv, i+1)
		if next < 0 {
			return a, false
		}
		switch kv[i] {
		case tagKey:
			a.Key = view(v)
		case tagValue:
			if a.Value, ok = parseValue(v); !ok {
				return a, false
			}
		}
		i = next
	}
	return a, true
}

// parseValue reads an AnyValue message that was checked before.
func parseValue(b []byte) (v Value, ok bool) {
	if len(b) == 0 {
		return v, true
	}
	switch b[0] {
	case tagString:
		s, next := bytesAt(b, 1)
		return Value{Type: Str, data: view(s)}, next >= 0
	case tagBool, tagInt:
		n, next := varint(b, 1)
		if b[0] == tagBool {
			return Value{Type: Bool, num: n}, next >= 0
		}
		return Value{Type: Int, num: n}, next >= 0
	case tagDouble:
		n, next := fixed64At(b, 1)
		return Value{Type: Double, num: n}, next >= 0
	case tagArray:
		v.Type = Array
	case tagMap:
		v.Type = Map
	case tagBytes:
		v.Type = Bytes
	case tagIndex:
		return v, true
	default:
		return v, false
	}
	v.data = view(b)
	return v, true
}
