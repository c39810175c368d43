package otlp

import (
	"context"
	"crypto/tls"
	"net/netip"

	"github.com/binnacle-project/binnacle"
)

// Sender is what a connection and the headers of one request show of whoever
// sends it, alike for HTTP and gRPC.
type Sender struct {
	// Peer is the remote address; the zero AddrPort where there is none.
	Peer netip.AddrPort
	// TLS is the state of the connection, nil on a plain one.
	TLS *tls.ConnectionState
	// Header returns the first value of a header by its name in any case, or "".
	Header func(name string) string
}

// Identify says who sends a request. The manager gives one for each listener:
// by client certificate on the node API, by loopback or bearer token
// elsewhere. It fills Origin.Peer too; where it leaves it zero, the receiver
// sets it from Sender.Peer.
//
// It runs before anything of the body is read, over gRPC in the connection's
// reading goroutine: it must not block. Its error is answered by class:
// ErrForbidden, a retryable one (Retry), else ErrUnauthenticated. The text of
// the error is shown to the sender.
type Identify func(ctx context.Context, s Sender) (binnacle.Origin, error)

// runIdentify identifies one request and fills in the peer.
func runIdentify(identify Identify, ctx context.Context, s Sender) (binnacle.Origin, error) {
	o, err := identify(ctx, s)
	if err != nil {
		return binnacle.Origin{}, classifyIdentity(err)
	}
	if !o.Peer.IsValid() {
		o.Peer = s.Peer.Addr()
	}
	return o, nil
}
