// Package licensing holds the subscription of the cluster and the rights that
// follow from it: licenses, which an issuer signs and the manager verifies and
// keeps, and leases, which the manager signs and each node verifies and keeps.
// Both are JWTs under EdDSA and nothing else, of at most 8 KiB.
//
// What a license or a lease means at time t is decided by pure functions; the
// Keeper only loads, watches and stores. A license that went bad never takes
// anything away at once: the last valid one goes on and Problem says why.
//
// It leaves to others who holds a seat (membership counts), how a token
// travels (manager, gateway) and what a node does when its lease ends
// (gateway). manager, gateway and the command line import it.
package licensing
