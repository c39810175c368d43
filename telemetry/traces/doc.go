// Package traces keeps spans on disk and answers Jaeger's query API from them.
// Spans are gathered for half a second, written as one compressed block of
// columns into Pebble with small indexes beside it (trace id, service and
// operation, attribute values), and dropped by whole hours when their time is
// over. What was acknowledged is durable within one second.
//
// It leaves receiving, attribution and authorization to others. The manager
// imports it, feeds it from package otlp and mounts Handler.
package traces
