// Command binnacle-manager runs the manager of a cluster of API gateways. It
// holds flags, environment, configuration file and signals; the manager itself
// is package manager.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/binnacle-project/binnacle"
	_ "github.com/binnacle-project/binnacle/cmd/internal/startlog"
	"github.com/binnacle-project/binnacle/manager"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "binnacle-manager: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := newRoot(stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func newRoot(stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "binnacle-manager",
		Short:         "Manage a cluster of API gateways",
		Version:       binnacle.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newRun(stderr), newRestore())
	return root
}

func newRun(stderr io.Writer) *cobra.Command {
	o := manager.DefaultOptions()
	var configFile, logLevel, logFormat string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the manager until it is told to stop",
		Long: `Run serves the page and the operator API, the nodes, gossip and OTLP.

Each flag may also stand in the environment, as BINNACLE_ and its name in capitals with
underscores (BINNACLE_DATA_DIR), and in the YAML file of --config under its own name
(data-dir: …). A flag beats the environment, which beats the file.

The first start makes the cluster key, a community license, and in --tokens-dir the files
join.token, admin.token, reader.token and otlp.token.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.Flags(), configFile, os.LookupEnv); err != nil {
				return err
			}
			log, err := newLogger(stderr, logLevel, logFormat)
			if err != nil {
				return err
			}
			o.Log = log
			manager.LimitMemory(o.Log)
			m, err := manager.New(o)
			if err != nil {
				return err
			}
			announce(cmd.OutOrStdout(), o, m)
			return m.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&configFile, "config", "", "YAML `FILE` with flags by their names (BINNACLE_CONFIG)")
	f.StringVar(&o.DataDir, "data-dir", o.DataDir, "`DIR` for everything the manager keeps")
	f.StringVar(&o.TokensDir, "tokens-dir", o.TokensDir, "`DIR` for the tokens of the first start (default tokens below --data-dir)")
	f.StringVar(&o.HTTPAddr, "http-addr", o.HTTPAddr, "`ADDR` of the page and the operator API")
	f.StringVar(&o.NodeAddr, "node-addr", o.NodeAddr, "`ADDR` of the node API (HTTPS with client certificates)")
	f.StringVar(&o.GossipAddr, "gossip-addr", o.GossipAddr, "`ADDR` of gossip, UDP and TCP, or off")
	f.StringVar(&o.OTLPGRPCAddr, "otlp-grpc-addr", o.OTLPGRPCAddr, "`ADDR` of OTLP over gRPC; empty closes it")
	f.StringVar(&o.OTLPHTTPAddr, "otlp-http-addr", o.OTLPHTTPAddr, "`ADDR` of OTLP over HTTP; empty closes it")
	f.StringVar(&o.Advertise, "advertise", o.Advertise, "`HOST` at which nodes reach this manager's gossip")
	f.StringVar(&o.License, "license", o.License, "license `FILE`, watched for changes (default: a local community license)")
	f.StringVar(&o.LicenseKeys, "license-keys", o.LicenseKeys, "`FILE` of issuer keys; only licenses of these issuers count then")
	f.StringVar(&o.GatewayBinary, "gateway-binary", o.GatewayBinary, "`FILE` that dry-builds configurations (default binnacle-gateway beside this program)")
	f.StringVar(&o.AnonymousRole, "anonymous-role", o.AnonymousRole, "`ROLE` of callers without a token: nobody, viewer, operator or admin (default viewer from loopback, nobody elsewhere)")
	f.BoolVar(&o.OTLPAnonymous, "otlp-anonymous", o.OTLPAnonymous, "let anyone send OTLP without a token, not only loopback")
	f.StringVar(&o.TLSCert, "tls-cert", o.TLSCert, "PEM `FILE` with the certificate of the page and the API")
	f.StringVar(&o.TLSKey, "tls-key", o.TLSKey, "PEM `FILE` with its key")
	f.StringVar(&o.TLS, "tls", o.TLS, "auto: serve the page and the API over HTTPS with an authority of their own, made in tls below --data-dir (`MODE`)")
	f.DurationVar(&o.MetricsRetention, "metrics-retention", o.MetricsRetention, "how long metrics are kept (`DURATION`)")
	f.DurationVar(&o.TracesRetention, "traces-retention", o.TracesRetention, "how long traces are kept (`DURATION`)")
	f.StringVar(&o.MetricsHistograms, "metrics-histograms", o.MetricsHistograms, "how histograms are stored: native, classic or both (`FORM`)")
	f.Int64Var(&o.MetricsMaxBytes, "metrics-max-bytes", o.MetricsMaxBytes, "disk for metrics, the oldest go first; 0 means no bound (`BYTES`)")
	f.Int64Var(&o.TracesMaxBytes, "traces-max-bytes", o.TracesMaxBytes, "disk for traces, the oldest go first; 0 means no bound (`BYTES`)")
	f.StringArrayVar(&o.TracesSample, "traces-sample", o.TracesSample, `rules by which traces are kept, first match decides, none keeps all; repeat it or part `+"`RULES`"+` by ";", e.g. "errors: status=error keep=100%; slow: duration>=1s keep=100%; rest: keep=5%"`)
	f.DurationVar(&o.TracesSampleWindow, "traces-sample-window", o.TracesSampleWindow, "`DURATION` from a trace's first span to the decision by --traces-sample")
	f.Int64Var(&o.TracesSampleBytes, "traces-sample-bytes", o.TracesSampleBytes, "memory for spans that wait for the decision; beyond it the oldest are decided early (`BYTES`)")
	f.IntVar(&o.MetricsMaxSeries, "metrics-max-series", o.MetricsMaxSeries, "series in memory, about 1 KiB each (`N`)")
	f.IntVar(&o.MetricsMaxSeriesPerNode, "metrics-max-series-per-node", o.MetricsMaxSeriesPerNode, "series in memory of one sender (`N`)")
	f.IntVar(&o.QueryMaxSamples, "query-max-samples", o.QueryMaxSamples, "samples that one PromQL query may hold at once, less where memory is small (`N`)")
	f.DurationVar(&o.QueryTimeout, "query-timeout", o.QueryTimeout, "`DURATION` after which a PromQL query is ended")
	f.IntVar(&o.QueryConcurrency, "query-concurrency", o.QueryConcurrency, "PromQL requests and, apart from them, trace queries worked on at once; as many again wait (`N`)")
	f.StringVar(&o.ForwardOTLP, "forward-otlp", o.ForwardOTLP, "`URL` of a remote engine that gets a copy over OTLP/HTTP (/v1/metrics and /v1/traces are added); empty means none")
	f.StringVar(&o.ForwardSignals, "forward-otlp-signals", o.ForwardSignals, "what it gets: `SIGNALS` is metrics, traces or metrics,traces")
	f.StringVar(&o.ForwardTokenFile, "forward-otlp-token-file", o.ForwardTokenFile, "`FILE` with a bearer token for it")
	f.Int64Var(&o.ForwardBytes, "forward-otlp-bytes", o.ForwardBytes, "disk for what waits while it is away, shared between the signals; beyond it the oldest are dropped (`BYTES`)")
	f.Int64Var(&o.MaxRequestBytes, "otlp-max-request-bytes", o.MaxRequestBytes, "largest OTLP request, on the wire and inflated (`BYTES`)")
	f.IntVar(&o.MaxPolls, "max-polls", o.MaxPolls, "polls of nodes that are held at once, about 30 KiB each; one more is answered 503 with Retry-After (`N`)")
	f.DurationVar(&o.DownAfter, "down-after", o.DownAfter, "`DURATION` from unreachable to down")
	f.DurationVar(&o.SeatHold, "seat-hold", o.SeatHold, "`DURATION` a seat is kept after a node left or went down")
	f.DurationVar(&o.LeaseLife, "lease-life", o.LeaseLife, "`DURATION` that a node stays a full member without a manager")
	f.DurationVar(&o.ForgetAfter, "forget-after", o.ForgetAfter, "`DURATION` after which a node that is down or gone is forgotten; 0 means never")
	f.StringVar(&o.BackupDir, "backup-dir", o.BackupDir, "`DIR` for backups of control state and keys (default backups below --data-dir)")
	f.DurationVar(&o.BackupEvery, "backup-every", o.BackupEvery, "`DURATION` between backups; 0 makes none")
	f.IntVar(&o.BackupKeep, "backup-keep", o.BackupKeep, "how many backups are kept (`N`)")
	f.StringVar(&o.DNSAddr, "dns-addr", o.DNSAddr, "`ADDR` of discovery by DNS, UDP and TCP, e.g. 127.0.0.1:53535; empty leaves it off")
	f.StringVar(&o.DNSZone, "dns-zone", o.DNSZone, "`DOMAIN` that discovery by DNS answers")
	f.DurationVar(&o.DNSTTL, "dns-ttl", o.DNSTTL, "`DURATION` for which DNS answers may be kept, in whole seconds")
	f.StringVar(&logLevel, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	f.StringVar(&logFormat, "log-format", "text", "`FORMAT`: text or json")
	return cmd
}

// announce tells a person where things are.
func announce(w io.Writer, o manager.Options, m *manager.Manager) {
	dir := o.TokensDir
	if dir == "" {
		dir = filepath.Join(o.DataDir, "tokens")
	}
	base, ca, sum := m.PageURL()
	fmt.Fprintf(w, "page and API   %s\nnodes          https://%s\ntokens         %s (join, admin, reader, otlp)\n", base, m.NodeAddr(), dir)
	if ca != "" {
		fmt.Fprintf(w, "authority      %s (SHA-256 %s): let browsers and clients trust it\n", ca, sum)
	}
	fmt.Fprintf(w, "one-time login %s/login?code=%s\n", base, m.LoginCode())
}

// fillFlags sets the flags that the command line left out, from the
// environment, else from the file. An unknown key in the file is an error.
func fillFlags(flags *pflag.FlagSet, file string, env func(string) (string, bool)) error {
	if file == "" {
		file, _ = env("BINNACLE_CONFIG")
	}
	values := map[string]any{}
	if file != "" {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--config %s: there is no such file", file)
		} else if err != nil {
			return fmt.Errorf("--config: %w", err)
		}
		if err := yaml.Unmarshal(b, &values); err != nil {
			return fmt.Errorf("--config %s: %w", file, err)
		}
	}
	for key := range values {
		if flags.Lookup(key) == nil || key == "config" || key == "help" {
			return fmt.Errorf("--config %s: %q is not a setting: its keys are the names of the flags (see --help)", file, key)
		}
	}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			return
		}
		name := "BINNACLE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := env(name); ok {
			if err := f.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, v, err))
			}
		} else if v, ok := values[f.Name]; ok {
			if err := setFromFile(f.Value, v); err != nil {
				errs = append(errs, fmt.Errorf("--config %s: %s: %w", file, f.Name, err))
			}
		}
	})
	return errors.Join(errs...)
}

// setFromFile sets a flag to a value of the YAML file. A flag that may be
// repeated takes a list, too.
func setFromFile(flag pflag.Value, v any) error {
	list, isList := v.([]any)
	if !isList {
		return flag.Set(fmt.Sprint(v))
	}
	many, ok := flag.(pflag.SliceValue)
	if !ok {
		return errors.New("is a list; want one value")
	}
	var texts []string
	for _, e := range list {
		texts = append(texts, fmt.Sprint(e))
	}
	return many.Replace(texts)
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, level) || l.UnmarshalText([]byte(level)) != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}
