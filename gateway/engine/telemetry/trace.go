package telemetry

import (
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/trace"
)

// traceparentLen is the length of version 00: 2+1+32+1+16+1+2.
const traceparentLen = 55

// parseTraceparent reads the caller's trace context; the result is not valid
// when there is none or it is malformed, and then a new trace begins.
//
//	00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//	version  trace id                   parent id        flags
//
// Source: W3C Trace Context, section 3.2.
func parseTraceparent(h http.Header) trace.SpanContext {
	vs := h["Traceparent"]
	if len(vs) != 1 {
		return trace.SpanContext{}
	}
	v := vs[0]
	if len(v) < traceparentLen || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return trace.SpanContext{}
	}
	var version, flags [1]byte
	var cfg trace.SpanContextConfig
	for _, f := range [...]struct {
		dst []byte
		src string
	}{{version[:], v[:2]}, {cfg.TraceID[:], v[3:35]}, {cfg.SpanID[:], v[36:52]}, {flags[:], v[53:55]}} {
		if !decodeLowerHex(f.dst, f.src) {
			return trace.SpanContext{}
		}
	}
	// Version ff is forbidden; 00 has nothing behind the flags; a later one
	// may, after another dash.
	if version[0] == 0xff || (version[0] == 0 && len(v) != traceparentLen) || (len(v) > traceparentLen && v[traceparentLen] != '-') {
		return trace.SpanContext{}
	}
	cfg.TraceFlags = trace.TraceFlags(flags[0]) & trace.FlagsSampled
	cfg.Remote = true
	if ts := h["Tracestate"]; len(ts) == 1 {
		if state, err := trace.ParseTraceState(ts[0]); err == nil {
			cfg.TraceState = state
		}
	}
	return trace.NewSpanContext(cfg)
}

// decodeLowerHex is strict: the specification allows no upper case.
func decodeLowerHex(dst []byte, src string) bool {
	for i := range dst {
		hi, ok1 := lowerHex(src[2*i])
		lo, ok2 := lowerHex(src[2*i+1])
		if !ok1 || !ok2 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func lowerHex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// writeTraceparent renders sc as the header of version 00, which traceresponse
// shares.
func writeTraceparent(b *[traceparentLen]byte, sc trace.SpanContext) {
	id, span := sc.TraceID(), sc.SpanID()
	copy(b[:], "00-")
	hex.Encode(b[3:35], id[:])
	b[35] = '-'
	hex.Encode(b[36:52], span[:])
	copy(b[52:], "-00")
	if sc.IsSampled() {
		b[54] = '1'
	}
}

// sampled decides for a caller's trace what the caller decided, and for a new
// one by the ratio.
func (t *Telemetry) sampled(parent trace.SpanContext) bool {
	if parent.IsValid() {
		return parent.IsSampled()
	}
	ratio := t.sampleRatio()
	return ratio >= 1 || (ratio > 0 && rand.Float64() < ratio)
}

// newSpanContext continues parent, or begins a trace. The ids of one that is not
// kept still go to backends and to the client, who may log them.
func newSpanContext(parent trace.SpanContext, sampled bool) trace.SpanContext {
	cfg := trace.SpanContextConfig{TraceFlags: trace.TraceFlags(0).WithSampled(sampled)}
	if parent.IsValid() {
		cfg.TraceID, cfg.TraceState = parent.TraceID(), parent.TraceState()
	}
	for !cfg.TraceID.IsValid() {
		putUint64(cfg.TraceID[:8], rand.Uint64())
		putUint64(cfg.TraceID[8:], rand.Uint64())
	}
	for !cfg.SpanID.IsValid() {
		putUint64(cfg.SpanID[:], rand.Uint64())
	}
	return trace.NewSpanContext(cfg)
}

func putUint64(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (56 - 8*i))
	}
}

// splitHostPort is lenient: without a port, or with one that is no number, the
// port is 0.
func splitHostPort(s string) (host string, port int) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return s, 0
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		port = 0
	}
	return host, port
}

func protocolVersion(major, minor int) string {
	switch {
	case major == 1 && minor == 1:
		return "1.1"
	case major == 2:
		return "2"
	case major == 3:
		return "3"
	}
	return strconv.Itoa(major) + "." + strconv.Itoa(minor)
}
