package agent

import (
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

var dialer = &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}

// managers holds the addresses of a manager group and a client for the one in
// use. After a failure the next one is tried, in turn, by all that talk to a
// manager together. It is safe for concurrent use.
type managers struct {
	addrs []string

	mu        sync.Mutex // guards what follows
	current   int
	transport *http.Transport
	clients   []*api.NodeClient
}

func newManagers(addrs []string) *managers { return &managers{addrs: addrs} }

// use makes clients over rt, closing the idle connections of the ones before.
func (m *managers) use(rt *http.Transport) {
	m.mu.Lock()
	old := m.transport
	m.transport = rt
	m.clients = m.clients[:0:0]
	for _, a := range m.addrs {
		m.clients = append(m.clients, api.NewNodeClient(a, rt))
	}
	m.mu.Unlock()
	if old != nil {
		old.CloseIdleConnections()
	}
}

// client returns the client in use; nil before the first use.
func (m *managers) client() *api.NodeClient {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.clients) == 0 {
		return nil
	}
	return m.clients[m.current%len(m.clients)]
}

// http returns the transport and base URL for exports.
func (m *managers) http() (http.RoundTripper, string) {
	c := m.client()
	m.mu.Lock()
	defer m.mu.Unlock()
	if c == nil {
		return nil, ""
	}
	return m.transport, c.Addr()
}

// failed moves on from c to the next manager, unless somebody has already.
func (m *managers) failed(c *api.NodeClient) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.clients); n > 1 && m.clients[m.current%n] == c {
		m.current = (m.current + 1) % n
	}
}

// close ends idle connections.
func (m *managers) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.transport != nil {
		m.transport.CloseIdleConnections()
	}
}
