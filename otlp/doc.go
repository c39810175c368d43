// Package otlp receives OpenTelemetry metrics and traces over gRPC and HTTP
// and hands them, attributed to whoever the connection proves them to come
// from, to the stores: spans decoded once, metrics where they lie (package
// wire). It refuses what is too big, too many or too costly before decoding it,
// and answers as the OTLP specification asks: partial success, retryable and
// permanent codes, Status bodies.
//
// It leaves to others who a sender is (Identify), where data are kept (Sink)
// and which sockets and certificates are used. The manager imports it; so do
// tests that need a real receiver.
package otlp
