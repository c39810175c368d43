package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/gateway"
	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/worker"
)

func newSupervise() *cobra.Command {
	var o gateway.SuperviseOptions
	var group, stopSignal, format, level string
	var labels []string
	var spool int64
	var delay time.Duration
	cmd := &cobra.Command{
		Use:   "supervise [flags] -- CMD [ARGS]",
		Short: "Run any other gateway as the worker of a node: write its file, check, reload, watch it",
		Long: `Supervise makes a node of any gateway that reads a configuration file. The agent enrolls, polls,
and brings the revisions of its group to the program: it checks a candidate beside the file, puts
it in place atomically, reloads (or restarts), and takes it back when the program then does not
answer. The program is started again when it dies; one that dies again and again with a revision
gets the last good one. What stands in the file at the first start is the node's own file.

The program gets OTEL_EXPORTER_OTLP_ENDPOINT (OTLP over HTTP, relayed to the manager) and resource
attributes in its environment. The node's group must be of format opaque: push its first revision
with ` + "`binnacle config push --group G --format opaque FILE`" + `.

    binnacle-gateway supervise --manager 10.0.0.5 --token-file join.token --group edge \\
      --config-file /etc/nginx/nginx.conf --check 'nginx -t -c {}' --reload HUP --stop-signal QUIT \\
      --health http://127.0.0.1:8080/healthz --advertise 10.0.0.9:8080 -- nginx -g 'daemon off;'`,
	}
	f := cmd.Flags()
	f.StringSliceVar((*[]string)(&o.Block.Manager), "manager", nil, "`HOST[:PORT]` of the manager's node API; several of one group may be named")
	f.StringVar(&o.Block.TokenFile, "token-file", "", "`FILE` with the join token")
	f.StringVar(&group, "group", "", "the `GROUP` to follow; the token's if not given")
	f.StringVar(&o.Block.Name, "name", "", "the node's `NAME`; the host's if not given")
	f.StringSliceVar(&labels, "label", nil, "`KEY=VALUE`, repeatable")
	f.StringVar(&o.Block.Advertise, "advertise", "", "`HOST[:PORT]` where others reach the program")
	f.StringVar(&o.Block.StateDir, "state-dir", "", "`FOLDER` for identity, last good configurations and spool (default /var/lib/binnacle/NAME)")
	f.StringVar(&o.Block.Gossip, "gossip", "", fmt.Sprintf("bind `ADDRESS` of gossip, or off (default :%d)", binnacle.PortGossip))
	f.Int64Var(&spool, "spool-bytes", 0, "most `BYTES` of telemetry on disk while the manager is away; 0 keeps none (default 256 MiB)")
	f.StringSliceVar(&o.Block.Allow.Env, "allow-env", nil, "`NAME`s that revisions may use by ${env:NAME}; a trailing * matches any rest")
	f.StringSliceVar(&o.Block.Allow.Files, "allow-file", nil, "`PATH`s that revisions may use by ${file:PATH}; a trailing / allows a folder")
	f.StringVar(&o.ConfigFile, "config-file", "", "the program's configuration `FILE`, which must exist")
	f.StringVar(&o.Program.Check, "check", "", "shell `COMMAND` that fails for a file it would not run; {} is the file")
	f.StringVar(&o.Program.Reload, "reload", "", "a signal's name (HUP) or a shell `COMMAND` that makes it read its file; a restart if not given")
	f.StringVar(&o.Program.Health, "health", "", "http://HOST:PORT/PATH or tcp://HOST:PORT that answers while it works")
	f.DurationVar(&o.Program.Settle, "settle", 15*time.Second, "how long it may take to answer at --health after a start or reload")
	f.DurationVar(&delay, "drain-delay", 5*time.Second, "how long the program serves on after SIGTERM, the node not ready, so that load balancers notice")
	f.StringVar(&stopSignal, "stop-signal", "TERM", "the `SIGNAL` that ends it in order")
	f.BoolVar(&o.DieWithParent, "die-with-parent", false, "end the program with this process, whatever ends it; otherwise it runs on until the next start")
	f.StringVar(&format, "log-format", "text", "text or json")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("name the program after --, as in: supervise … -- nginx -g 'daemon off;'")}
		}
		l, err := logLevel(format, level)
		if err != nil {
			return err
		}
		sig, ok := agent.SignalNamed(stopSignal)
		if !ok {
			return usageError{fmt.Errorf("--stop-signal %q: want TERM, QUIT, INT, HUP, USR1 or USR2", stopSignal)}
		}
		for _, kv := range labels {
			k, v, ok := strings.Cut(kv, "=")
			if !ok {
				return usageError{fmt.Errorf("--label %q: want KEY=VALUE", kv)}
			}
			if o.Block.Labels == nil {
				o.Block.Labels = map[string]string{}
			}
			o.Block.Labels[k] = v
		}
		if cmd.Flags().Changed("spool-bytes") {
			o.Block.SpoolBytes = &spool
		}
		if cmd.Flags().Changed("drain-delay") {
			o.Block.SetDrainDelay(delay)
		}
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		o.Block.Group = binnacle.Group(group)
		o.Program.Command, o.Program.StopSignal = args, sig
		o.Reload, o.Log = hup, worker.NewLogger(cmd.ErrOrStderr(), format, l.String())
		return gateway.Supervise(cmd.Context(), o)
	}
	return cmd
}

// logLevel checks the flags of the log.
func logLevel(format, level string) (slog.Level, error) {
	var l slog.Level
	if format != "text" && format != "json" {
		return l, usageError{fmt.Errorf("--log-format %q: want text or json", format)}
	}
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return l, usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", level)}
	}
	return l, nil
}
