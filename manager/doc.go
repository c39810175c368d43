// Package manager assembles the manager: it opens the stores, gives every
// feature what it asks for, and serves the operator API and the page on :9897,
// the node API on :9899 and the OTLP receivers. New is one straight function
// that shows the whole graph; routes.go lists every route of :9897 with who may
// call it, nodeapi.go those of :9899. What a feature decides, it decides in its
// own package; here features meet, and nothing else imports them all.
package manager
