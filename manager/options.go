package manager

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/licensing"
	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/otlp/forward"
	"github.com/binnacle-project/binnacle/telemetry/traces"
)

// Options of a manager. DefaultOptions is the one home of defaults; cmd fills
// the rest from flags, environment and file.
type Options struct {
	// DataDir keeps everything: control state, metrics, traces, the cluster key.
	DataDir string
	// TokensDir gets join.token, admin.token, reader.token and otlp.token at
	// the first start; empty means DataDir/tokens.
	TokensDir string

	// Addresses to listen on. HTTPAddr serves the page and the operator API,
	// NodeAddr the nodes (TLS 1.3), GossipAddr gossip over UDP and TCP. An empty
	// OTLP address closes that receiver; GossipAddr "off" turns gossip off.
	HTTPAddr     string
	NodeAddr     string
	GossipAddr   string
	OTLPGRPCAddr string
	OTLPHTTPAddr string
	// Advertise is the IP address or name at which nodes reach this manager's
	// gossip. Empty means the one of GossipAddr, or, where that is unspecified,
	// the address of the default route.
	Advertise string

	// License is a license file; empty means the local community license.
	License string
	// LicenseKeys is a file of issuer keys; empty means the local issuer.
	LicenseKeys string
	// LeaseLife is how long a node goes on without a manager. Longer bears a
	// longer outage; shorter frees the seats of nodes that are gone from sight
	// sooner.
	LeaseLife time.Duration

	// GatewayBinary dry-builds configurations; empty means binnacle-gateway
	// beside this program, if it is there.
	GatewayBinary string

	// AnonymousRole is the role of callers without a token: nobody, viewer,
	// operator or admin. Empty means viewer from loopback, nobody elsewhere.
	AnonymousRole string
	// OTLPAnonymous lets senders without a token use the OTLP ports from
	// anywhere, not only from loopback.
	OTLPAnonymous bool
	// TLSCert and TLSKey are PEM files for :9897; both or neither. They are read
	// again when they change.
	TLSCert, TLSKey string
	// TLS is empty or TLSAuto: :9897 then has a certificate of an authority that
	// the first start makes in DataDir/tls.
	TLS string

	// MetricsRetention and TracesRetention are how long telemetry is kept.
	MetricsRetention time.Duration
	TracesRetention  time.Duration
	// MetricsHistograms is native, classic or both.
	MetricsHistograms string
	// MetricsMaxBytes and TracesMaxBytes bound what each takes on disk; the
	// oldest goes first. 0 means no bound but the retention.
	MetricsMaxBytes int64
	TracesMaxBytes  int64
	// TracesSample are the rules by which traces are kept, see
	// traces.ParseRules; none keeps all. TracesSampleWindow is the time from a
	// trace's first span to its decision, TracesSampleBytes the memory for spans
	// that wait for theirs.
	TracesSample       []string
	TracesSampleWindow time.Duration
	TracesSampleBytes  int64
	// MetricsMaxSeries and MetricsMaxSeriesPerNode bound the series of the last
	// two to three hours, which are in memory at about 1 KiB each. Points that
	// would make one more are refused with a partial success and an event.
	MetricsMaxSeries        int
	MetricsMaxSeriesPerNode int
	// QueryMaxSamples, QueryTimeout and QueryConcurrency bound PromQL queries,
	// so that they leave ingest and polls alone.
	QueryMaxSamples  int
	QueryTimeout     time.Duration
	QueryConcurrency int
	// ForwardOTLP is the base URL of a remote engine that gets a copy of all that
	// is received, over OTLP/HTTP; empty means none. ForwardSignals is metrics,
	// traces or both with a comma, ForwardTokenFile holds a bearer token for it, and
	// ForwardBytes bounds the queue on disk for when it is away.
	ForwardOTLP      string
	ForwardSignals   string
	ForwardTokenFile string
	ForwardBytes     int64
	// MaxRequestBytes bounds one OTLP request, on the wire and inflated.
	MaxRequestBytes int64

	// MaxPolls is how many polls of nodes are held at once; one more is answered
	// 503 with Retry-After. Each takes about 30 KiB. Fewer file descriptors than
	// five for four of them lower it.
	MaxPolls int

	// DownAfter is the time from unreachable to down, SeatHold how long a seat
	// is kept after a node left or went down.
	DownAfter time.Duration
	SeatHold  time.Duration
	// ForgetAfter is how long a node may be down or gone before it is forgotten;
	// 0 means for ever. Who comes back later enrolls anew with a join token.
	ForgetAfter time.Duration

	// BackupDir gets a backup of control state and keys each BackupEvery; empty
	// means DataDir/backups, and 0 makes none. BackupKeep are kept.
	BackupDir   string
	BackupEvery time.Duration
	BackupKeep  int

	// DNSAddr answers discovery by DNS, over UDP and TCP; empty means off. It is
	// open to whoever reaches it. DNSZone is its domain, and DNSTTL, in whole
	// seconds, how long load balancers may keep an answer.
	DNSAddr string
	DNSZone string
	DNSTTL  time.Duration

	// Log takes messages; nil discards them.
	Log *slog.Logger
}

// DefaultOptions returns the defaults, in the current directory.
func DefaultOptions() Options {
	port := func(p int) string { return ":" + strconv.Itoa(p) }
	return Options{
		DataDir:          "binnacle-data",
		HTTPAddr:         net.JoinHostPort("127.0.0.1", strconv.Itoa(binnacle.PortHTTP)),
		NodeAddr:         port(binnacle.PortNode),
		GossipAddr:       port(binnacle.PortGossip),
		OTLPGRPCAddr:     port(binnacle.PortOTLPGRPC),
		OTLPHTTPAddr:     port(binnacle.PortOTLPHTTP),
		MetricsRetention: 15 * 24 * time.Hour,
		MetricsMaxSeries: 2_000_000, MetricsMaxSeriesPerNode: 50_000,
		QueryMaxSamples: 20_000_000, QueryTimeout: 30 * time.Second, QueryConcurrency: 8,
		TracesRetention:    48 * time.Hour,
		TracesSampleWindow: traces.DefaultSampling().Window, TracesSampleBytes: traces.DefaultSampling().MaxBytes,
		MetricsHistograms: "native",
		ForwardSignals:    "metrics,traces", ForwardBytes: 1 << 30,
		MaxPolls:        20_000,
		MaxRequestBytes: 16 << 20,
		DownAfter:       5 * time.Minute,
		SeatHold:        10 * time.Minute,
		ForgetAfter:     7 * 24 * time.Hour,
		DNSZone:         "binnacle",
		DNSTTL:          5 * time.Second,
		LeaseLife:       licensing.DefaultLeaseLife,
		BackupEvery:     time.Hour, BackupKeep: 48,
	}
}

// TLSAuto as TLS makes the certificate of :9897.
const TLSAuto = "auto"

// maxSampleWindow bounds how long spans wait for the verdict on their trace: far
// below an hour, the unit in which the store drops.
const maxSampleWindow = 10 * time.Minute

// GossipOff as GossipAddr turns gossip off.
const GossipOff = "off"

// Validate names the flag at fault.
func (o Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.DataDir == "" {
		bad("--data-dir is empty: name the folder that keeps the manager's state")
	}
	for _, a := range []struct{ flag, addr string }{
		{"--http-addr", o.HTTPAddr}, {"--node-addr", o.NodeAddr}, {"--gossip-addr", o.GossipAddr},
		{"--otlp-grpc-addr", o.OTLPGRPCAddr}, {"--otlp-http-addr", o.OTLPHTTPAddr}, {"--dns-addr", o.DNSAddr},
	} {
		optional := a.flag == "--otlp-grpc-addr" || a.flag == "--otlp-http-addr" || a.flag == "--dns-addr"
		if a.addr == "" && optional || a.flag == "--gossip-addr" && a.addr == GossipOff {
			continue
		}
		_, port, err := net.SplitHostPort(a.addr)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
			bad("%s %q: want HOST:PORT, or :PORT for all addresses", a.flag, a.addr)
		}
	}
	if o.ForwardOTLP != "" {
		if err := o.forward().Validate(); err != nil {
			bad("--forward-otlp, --forward-otlp-signals: %w", err)
		}
	}
	if _, err := traces.ParseRules(o.TracesSample...); err != nil {
		bad("--traces-sample: %w", err)
	}
	if o.TracesSampleWindow > maxSampleWindow {
		bad("--traces-sample-window %v: want at most %v", o.TracesSampleWindow, maxSampleWindow)
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		bad("--tls-cert and --tls-key go together: one of them is missing")
	}
	if o.TLS != "" && o.TLS != TLSAuto {
		bad("--tls %q: want auto, or leave it out", o.TLS)
	}
	if o.TLS == TLSAuto && o.TLSCert != "" {
		bad("--tls=auto makes a certificate and --tls-cert names one: leave one of them out")
	}
	if o.AnonymousRole != "" {
		if _, err := access.ParseRole(o.AnonymousRole); err != nil {
			bad("--anonymous-role: %w", err)
		}
	}
	switch o.MetricsHistograms {
	case "native", "classic", "both":
	default:
		bad("--metrics-histograms %q: want native, classic or both", o.MetricsHistograms)
	}
	for _, d := range []struct {
		flag string
		d    time.Duration
		min  time.Duration
	}{
		{"--metrics-retention", o.MetricsRetention, 2 * time.Hour},
		{"--traces-retention", o.TracesRetention, time.Hour},
		{"--traces-sample-window", o.TracesSampleWindow, time.Second},
		{"--down-after", o.DownAfter, time.Second},
		{"--seat-hold", o.SeatHold, 0},
		{"--backup-every", o.BackupEvery, 0},
		{"--lease-life", o.LeaseLife, 2 * time.Second},
	} {
		if d.d < d.min {
			bad("%s %v: want at least %v", d.flag, d.d, d.min)
		}
	}
	for _, n := range []struct {
		flag string
		n    int64
		min  int64
	}{
		{"--metrics-max-bytes", o.MetricsMaxBytes, 0},
		{"--traces-max-bytes", o.TracesMaxBytes, 0},
		{"--forward-otlp-bytes", o.ForwardBytes, 8 << 20},
		{"--traces-sample-bytes", o.TracesSampleBytes, 1 << 20},
		{"--backup-keep", int64(o.BackupKeep), 1},
		{"--metrics-max-series", int64(o.MetricsMaxSeries), 1},
		{"--metrics-max-series-per-node", int64(o.MetricsMaxSeriesPerNode), 1},
		{"--query-max-samples", int64(o.QueryMaxSamples), 1},
		{"--query-timeout", int64(o.QueryTimeout), 1},
		{"--query-concurrency", int64(o.QueryConcurrency), 1},
		{"--max-polls", int64(o.MaxPolls), 1},
	} {
		if n.n < n.min {
			bad("%s %d: want at least %d", n.flag, n.n, n.min)
		}
	}
	if o.ForgetAfter > 0 && o.ForgetAfter < o.DownAfter {
		bad("--forget-after %v: want at least --down-after (%v), or 0 for never", o.ForgetAfter, o.DownAfter)
	}
	if err := membership.CheckDNSZone(o.DNSZone); err != nil {
		bad("--dns-zone: %w", err)
	}
	if o.MaxRequestBytes < 1<<10 || o.MaxRequestBytes > 64<<20 {
		bad("--otlp-max-request-bytes %d: want 1 KiB to 64 MiB", o.MaxRequestBytes)
	}
	return errors.Join(errs...)
}

// forward are the options of the forwarder.
func (o Options) forward() forward.Options {
	return forward.Options{
		URL: o.ForwardOTLP, Signals: o.ForwardSignals, TokenFile: o.ForwardTokenFile, MaxBytes: o.ForwardBytes,
		Dir: filepath.Join(o.DataDir, "forward"), Log: o.Log,
	}
}

// gatewayBinary returns the binary for dry builds, or "" when there is none.
func (o Options) gatewayBinary() string {
	if o.GatewayBinary != "" {
		return o.GatewayBinary
	}
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	p := filepath.Join(filepath.Dir(exe), "binnacle-gateway")
	if fi, err := os.Stat(p); err != nil || fi.IsDir() {
		return ""
	}
	return p
}

// secure reports whether :9897 speaks TLS.
func (o Options) secure() bool { return o.TLSCert != "" || o.TLS == TLSAuto }

func (o Options) backupDir() string {
	if o.BackupDir != "" {
		return o.BackupDir
	}
	return filepath.Join(o.DataDir, "backups")
}

func (o Options) tokensDir() string {
	if o.TokensDir != "" {
		return o.TokensDir
	}
	return filepath.Join(o.DataDir, "tokens")
}
