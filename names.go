package binnacle

// Default ports.
const (
	PortHTTP     = 9897  // web page and operator API
	PortGossip   = 9898  // gossip, UDP and TCP
	PortNode     = 9899  // node API, HTTPS with mutual TLS
	PortOTLPGRPC = 4317  // OTLP over gRPC
	PortOTLPHTTP = 4318  // OTLP over HTTP
	PortDNS      = 53535 // DNS discovery, off by default
)

// ConfigBlock is the key of the cluster block in a node's extra_config. It
// starts with '@', so that KrakenD's schema accepts it and KrakenD ignores it.
const ConfigBlock = "@cluster"

// Headers of the node API.
const (
	// HeaderLease carries a fresh lease (a compact JWT) to the node.
	HeaderLease = "Binnacle-Lease"
	// HeaderLeaseExpires says, in a poll, when the lease that the node holds
	// ends (RFC 3339); absent when it holds none.
	HeaderLeaseExpires = "Binnacle-Lease-Expires"
	// HeaderRevision says which revision was running when an export was made.
	HeaderRevision = "Binnacle-Revision"
)

// Resource and span attributes of the project's own namespace.
const (
	AttrCluster  = "binnacle.cluster"
	AttrGroup    = "binnacle.group"
	AttrRevision = "binnacle.revision"
	// AttrProcess keeps the sender's own service.instance.id, one per process,
	// and is part of each stream's identity.
	AttrProcess = "binnacle.process"
	// AttrPrefix is reserved: unmanaged senders may not use it.
	AttrPrefix = "binnacle."
)

// ErrorTypeLimit is the error.type of an answer refused by the fallback rate.
const ErrorTypeLimit = "binnacle.limit"

// service.name values of the project's own processes, which stay out of
// activity and roll-ups.
const (
	ServiceManager = "binnacle-manager"
	ServiceAgent   = "binnacle-agent"
	ServiceGateway = "binnacle-gateway"
)

// OTLP names of the two dialects that are read.
const (
	// OpenTelemetry HTTP semantic conventions, seconds.
	MetricServerDuration = "http.server.request.duration"
	MetricClientDuration = "http.client.request.duration"
	// krakend-otel, seconds although it sets no unit.
	MetricKrakendServerDuration = "http.server.duration"
	MetricKrakendClientDuration = "http.client.duration"
)

// Roll-up series: cumulative exponential histograms in seconds.
const (
	RollupGroup       = "group:http_server_request_duration_seconds"
	RollupNode        = "node:http_server_request_duration_seconds"
	RollupEndpoint    = "endpoint:http_server_request_duration_seconds"
	RollupBackend     = "backend:http_client_request_duration_seconds"
	RollupNodeBackend = "node_backend:http_client_request_duration_seconds"
)

// Labels of stored series.
const (
	LabelJob      = "job"      // service.name
	LabelInstance = "instance" // node id
	LabelProcess  = "process"  // binnacle.process
	LabelGroup    = "group"
	LabelRevision = "revision"
	LabelOutcome  = "outcome"
)
