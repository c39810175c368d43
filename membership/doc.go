// Package membership says who belongs to a cluster and who of them can be
// reached. It holds join tokens, enrollment, the registry of nodes with their
// states, the gossip keyring in control state, and the discovery documents for
// load balancers. The cluster key and its certificates are package pki, the
// gossip that manager and nodes run between themselves is package gossip.
//
// Two rules shape it. The poll is the truth and gossip is a hint: identity,
// seats and groups come from the certificate of an authenticated connection,
// and a node whose poll works is never down, whatever gossip says. And states
// are decided by one pure function, [StateOf], from the signs of life that
// thin code collects.
//
// Licenses, configurations and telemetry are left to others: the package asks
// for seats through the interface [Seats], and the manager fills in the ledger,
// lease and activity of the nodes listed here. A node's agent uses
// pki and gossip alone.
package membership
