// Package gossip has the members of a cluster, managers and nodes, tell each other who
// is there and who does not answer: memberlist (SWIM with Lifeguard) under encryption,
// with records that the cluster key vouches for, so that no member can speak for
// another. What it tells is a hint; what is true of a node, its polls decide. Members
// are remembered on disk and asked again after a partition, so that a cluster finds
// itself together without a manager.
package gossip
