// Package e2e holds tests only: they start the real binaries as processes, send
// real traffic through them to real backends, and look at the result the way
// their users do: with the API, with PromQL, with the Jaeger API, with the
// command line and in a browser.
package e2e
