package telemetry

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/encoding/protowire"
)

// A span is not an object here: what it says is known when it ends, and is then
// written at once in the form in which it is sent, behind those that wait for
// the same export. It costs a tenth of the SDK's, which builds each span three
// times (its own, the exporter's, the protobuf).

// Field numbers of opentelemetry.proto.trace.v1.Span, and of what is in it.
//
// Source: opentelemetry-proto, trace/v1/trace.proto, common/v1/common.proto.
const (
	spanTraceID    protowire.Number = 1
	spanID         protowire.Number = 2
	spanState      protowire.Number = 3
	spanParent     protowire.Number = 4
	spanName       protowire.Number = 5
	spanKind       protowire.Number = 6
	spanStart      protowire.Number = 7
	spanEnd        protowire.Number = 8
	spanAttributes protowire.Number = 9
	spanStatus     protowire.Number = 15
	spanFlags      protowire.Number = 16

	statusMessage protowire.Number = 2
	statusCode    protowire.Number = 3

	keyValueKey   protowire.Number = 1
	keyValueValue protowire.Number = 2

	anyString protowire.Number = 1
	anyBool   protowire.Number = 2
	anyInt    protowire.Number = 3
	anyDouble protowire.Number = 4
	anyArray  protowire.Number = 5

	arrayValue protowire.Number = 1
)

const (
	kindInternal = 1
	kindServer   = 2
	kindClient   = 3

	statusError = 2

	// flagsHasRemote says that flagsRemote is meant: whether the parent is of
	// another process.
	flagsHasRemote = 0x100
	flagsRemote    = 0x200
)

// spanWriter writes one span. Writers are used again: open, write, hand over
// with Telemetry.endSpan.
type spanWriter struct{ b []byte }

// maxSpanKept is the size in bytes up to which a writer's memory is kept for the
// next span: a client can make one as large as its headers.
const maxSpanKept = 16 << 10

var spanWriters = sync.Pool{New: func() any { return &spanWriter{b: make([]byte, 0, 1024)} }}

// openSpan begins a span that lasted from start to end. name comes in two
// parts with a space between, so that nobody needs to join them.
func openSpan(i identity, kind uint64, verb, rest string, start, end time.Time) *spanWriter {
	w := spanWriters.Get().(*spanWriter)
	b := w.b[:0]
	sc, parent := i.sc, i.parent
	id, own := sc.TraceID(), sc.SpanID()
	b = appendBytes(b, spanTraceID, id[:])
	b = appendBytes(b, spanID, own[:])
	if s := sc.TraceState().String(); s != "" {
		b = appendString(b, spanState, s)
	}
	flags := uint32(sc.TraceFlags()) | flagsHasRemote
	if parent.id.IsValid() {
		b = appendBytes(b, spanParent, parent.id[:])
		if parent.remote {
			flags |= flagsRemote
		}
	}
	verb, rest = valid(verb), valid(rest)
	n := len(verb)
	if rest != "" {
		n += 1 + len(rest)
	}
	b = appendTag(b, spanName, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = append(b, verb...)
	if rest != "" {
		b = append(append(b, ' '), rest...)
	}
	b = appendVarint(b, spanKind, kind)
	b = appendFixed64(b, spanStart, uint64(start.UnixNano()))
	b = appendFixed64(b, spanEnd, uint64(end.UnixNano()))
	b = appendTag(b, spanFlags, protowire.Fixed32Type)
	w.b = binary.LittleEndian.AppendUint32(b, flags)
	return w
}

// raw adds attributes that were encoded before.
func (w *spanWriter) raw(encoded []byte) { w.b = append(w.b, encoded...) }

// text adds an attribute with a string.
func (w *spanWriter) text(k attribute.Key, v string) {
	v = valid(v)
	w.b = appendString(w.attribute(k, sizeBytes(anyString, len(v))), anyString, v)
}

// number adds an attribute with an integer.
func (w *spanWriter) number(k attribute.Key, v int) {
	b := w.attribute(k, protowire.SizeTag(anyInt)+protowire.SizeVarint(uint64(v)))
	w.b = appendVarint(b, anyInt, uint64(v))
}

// flag adds an attribute with a truth value.
func (w *spanWriter) flag(k attribute.Key, v bool) {
	w.b = appendVarint(w.attribute(k, protowire.SizeTag(anyBool)+1), anyBool, protowire.EncodeBool(v))
}

// texts adds an attribute with a list of strings, each cut at maxHeaderValue.
func (w *spanWriter) texts(k string, vs []string) {
	size := 0
	for _, v := range vs {
		size += sizeBytes(arrayValue, sizeBytes(anyString, len(cut(v))))
	}
	b := w.attribute(attribute.Key(valid(k)), sizeBytes(anyArray, size))
	b = appendTag(b, anyArray, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	for _, v := range vs {
		v = cut(v)
		b = appendTag(b, arrayValue, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeBytes(anyString, len(v))))
		b = appendString(b, anyString, v)
	}
	w.b = b
}

// cut returns the valid beginning of s.
func cut(s string) string { return valid(s[:min(len(s), maxHeaderValue)]) }

// attribute begins an attribute whose AnyValue takes so many bytes.
func (w *spanWriter) attribute(k attribute.Key, value int) []byte {
	b := appendTag(w.b, spanAttributes, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeBytes(keyValueKey, len(k))+sizeBytes(keyValueValue, value)))
	b = appendString(b, keyValueKey, string(k))
	b = appendTag(b, keyValueValue, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(value))
}

// failed marks the span as an error.
func (w *spanWriter) failed(description string) {
	description = valid(description)
	n := protowire.SizeTag(statusCode) + 1
	if description != "" {
		n += sizeBytes(statusMessage, len(description))
	}
	b := appendTag(w.b, spanStatus, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	if description != "" {
		b = appendString(b, statusMessage, description)
	}
	w.b = appendVarint(b, statusCode, statusError)
}

// encodeAttributes returns kvs as attributes of a span, without those that the
// conventions' own outweigh; of one key the last counts.
func encodeAttributes(kvs []attribute.KeyValue) []byte {
	var w spanWriter
	for i, kv := range kvs {
		later := func(o attribute.KeyValue) bool { return o.Key == kv.Key }
		if slices.Contains(conventionKeys, kv.Key) || slices.ContainsFunc(kvs[i+1:], later) {
			continue
		}
		switch kv.Value.Type() {
		case attribute.INT64:
			w.number(kv.Key, int(kv.Value.AsInt64()))
		case attribute.BOOL:
			w.flag(kv.Key, kv.Value.AsBool())
		case attribute.FLOAT64:
			b := w.attribute(kv.Key, protowire.SizeTag(anyDouble)+8)
			w.b = appendFixed64(b, anyDouble, math.Float64bits(kv.Value.AsFloat64()))
		default:
			w.text(kv.Key, kv.Value.String())
		}
	}
	return w.b
}

func appendTag(b []byte, n protowire.Number, t protowire.Type) []byte {
	return protowire.AppendTag(b, n, t)
}

func appendVarint(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(appendTag(b, n, protowire.VarintType), v)
}

func appendFixed64(b []byte, n protowire.Number, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(b, n, protowire.Fixed64Type), v)
}

func appendBytes(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(appendTag(b, n, protowire.BytesType), v)
}

func appendString(b []byte, n protowire.Number, v string) []byte {
	return protowire.AppendString(appendTag(b, n, protowire.BytesType), v)
}

// valid returns s without what is no UTF-8: receivers refuse a whole export for
// one such string, and clients put anything into paths and headers.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func sizeBytes(n protowire.Number, size int) int {
	return protowire.SizeTag(n) + protowire.SizeBytes(size)
}
