package telemetry

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Names of the spans and attributes of a connection's making.
//
// Source: OpenTelemetry semantic conventions, .NET network traces, the only ones
// that name these parts; the last two have no name there.
const (
	spanDNS     = "DNS lookup"
	spanConnect = "socket connect"
	spanTLS     = "TLS client handshake"
	spanWait    = "HTTP wait_for_response"
	spanBody    = "HTTP read_body"

	keyQuestion    = attribute.Key("dns.question.name")
	keyPeerAddress = attribute.Key("network.peer.address")
	keyPeerPort    = attribute.Key("network.peer.port")
)

// maxPhases bounds the spans of one exchange: a host can have many addresses.
const maxPhases = 12

// phase is a part of an exchange. One without an end goes on.
type phase struct {
	name, detail string // detail is the host or host:port
	start, end   time.Time
	err          error
}

// phases are the parts of one exchange. The transport goes on with a dial whose
// request has found another connection, so that it tells of some when the
// exchange is over; those are nobody's.
type phases struct {
	mu   sync.Mutex
	list []phase
	over bool
}

// traced returns ctx, with which the transport tells of its connections.
func (p *phases) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:             func(i httptrace.DNSStartInfo) { p.begin(spanDNS, i.Host) },
		DNSDone:              func(i httptrace.DNSDoneInfo) { p.end(spanDNS, "", i.Err) },
		ConnectStart:         func(_, addr string) { p.begin(spanConnect, addr) },
		ConnectDone:          func(_, addr string, err error) { p.end(spanConnect, addr, err) },
		TLSHandshakeStart:    func() { p.begin(spanTLS, "") },
		TLSHandshakeDone:     func(_ tls.ConnectionState, err error) { p.end(spanTLS, "", err) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { p.begin(spanWait, "") },
		GotFirstResponseByte: func() { p.end(spanWait, "", nil) },
	})
}

func (p *phases) begin(name, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over && len(p.list) < maxPhases {
		p.list = append(p.list, phase{name: name, detail: detail, start: time.Now()})
	}
}

// end ends the last phase of that name that goes on, of that detail unless empty.
func (p *phases) end(name, detail string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	for i := len(p.list) - 1; i >= 0; i-- {
		if x := &p.list[i]; x.name == name && x.end.IsZero() && (detail == "" || x.detail == detail) {
			x.end, x.err = time.Now(), err
			return
		}
	}
}

// write writes the phases as children of span. What goes on when the exchange has
// ended is what it waited for: it failed as the exchange did.
func (p *phases) write(t *Telemetry, span trace.SpanContext, now time.Time, failed string) {
	p.mu.Lock()
	p.over = true
	list := p.list
	p.mu.Unlock()
	for _, x := range list {
		errType := ""
		switch {
		case x.end.IsZero():
			x.end, errType = now, failed
		case x.err != nil:
			errType = errorType(context.Background(), x.err)
		}
		w := openSpan(newIdentity(span, true), kindInternal, x.name, x.detail, x.start, x.end)
		switch x.name {
		case spanDNS:
			w.text(keyQuestion, x.detail)
		case spanConnect:
			host, port := splitHostPort(x.detail)
			w.text(keyPeerAddress, host)
			if port != 0 {
				w.number(keyPeerPort, port)
			}
		}
		if errType != "" {
			w.text(keyErrorType, errType)
			if x.err != nil {
				w.failed(x.err.Error())
			}
		}
		t.endSpan(w)
	}
}
