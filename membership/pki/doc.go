// Package pki is the cluster's own public key infrastructure: the authority with the
// cluster key, the keys and certificates of nodes and managers, the memberships that
// are shown in gossip, and the TLS configurations of both sides. Who holds a
// certificate is thereby known, and no more: whether a node may still speak is asked
// of the registry.
package pki
