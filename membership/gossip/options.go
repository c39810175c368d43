package gossip

import (
	"crypto/ed25519"
	"log"
	"log/slog"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// Options say how a member takes part in the gossip.
type Options struct {
	// Identity is who the member is; its id is the name in gossip.
	Identity pki.Identity
	Cluster  binnacle.ClusterID
	// CAPub is the cluster key, against which all others are checked.
	CAPub ed25519.PublicKey

	// Bind is host:port for UDP and TCP. An empty host means all IPv4
	// addresses, port 0 any free one.
	Bind string
	// Advertise is the address that others use, "host" or "host:port". Empty
	// means the bind address or, if that is unspecified, the first private
	// address of the machine.
	Advertise string
	// Label keeps clusters on one network apart; empty means Label(Cluster).
	Label string
	// Keys is the keyring, at most two, the one to use first.
	Keys []api.GossipKey
	// Meta is what the member says of itself at first.
	Meta Metadata

	// PeersFile is where the peers that were seen are kept, so that a restart
	// finds the others without the manager. Empty keeps none.
	PeersFile string
	// Seeds returns host:port of managers to join through. It may be nil, and
	// its answer may change.
	Seeds func() []string
	// OnEvent is called, one call at a time and never under a lock, for what
	// happens to others. It may take its time: only the newest event of each
	// member waits. It may be nil.
	OnEvent func(Event)
	// Allow, if not nil, may refuse a member that proves its membership, such
	// as one that was forgotten. It is called under memberlist's lock and has
	// to return at once.
	Allow func(binnacle.NodeID, ed25519.PublicKey) error
	// Manager sizes queues for one who hears of all nodes at once.
	Manager bool

	// Log and Metrics (binnacle_gossip_*) may be nil.
	Log     *slog.Logger
	Metrics *metrics.Set

	// tune changes memberlist's configuration, rejoin the time between rounds,
	// and network takes the place of sockets, in tests.
	tune    func(*memberlist.Config)
	rejoin  time.Duration
	network func(*log.Logger) (memberlist.NodeAwareTransport, netip.AddrPort, error)
}

// Label returns the label that keeps the gossip of a cluster apart from
// that of others.
func Label(c binnacle.ClusterID) string { return "binnacle/" + string(c) }
