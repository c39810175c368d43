// Package membership says who belongs to a cluster and who of them can be
// reached. It holds the cluster key and its certificates, join tokens,
// enrollment, the registry of nodes with their states, the gossip that manager
// and nodes run between themselves, and the discovery documents for load
// balancers.
//
// Two rules shape it. The poll is the truth and gossip is a hint: identity,
// seats and groups come from the certificate of an authenticated connection,
// and a node whose poll works is never down, whatever gossip says. And states
// are decided by one pure function, [StateOf], from the signs of life that
// thin code collects.
//
// Licenses, configurations and telemetry are left to others: the package asks
// for seats through the interface [Seats], and the manager fills in the ledger,
// lease and activity of the nodes listed here. The manager imports it for all
// of it, the node's agent for [EnrollTLS], [NodeTLS], keys and [StartGossip].
package membership
