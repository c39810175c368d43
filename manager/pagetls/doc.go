// Package pagetls makes the TLS configuration of :9897, the page and the
// operator API: from PEM files that are read again when they change, or from an
// authority of its own that the first start makes. Browsers refuse the Ed25519
// of the cluster key, so these keys are P-256 and have nothing to do with
// nodes. Only package manager imports it.
package pagetls
