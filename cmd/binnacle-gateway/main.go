// Command binnacle-gateway is the gateway, standalone or as a node of a
// cluster, as the @cluster block of its file says. It holds flags, signals and
// output only; what it runs stands in gateway.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	_ "github.com/binnacle-project/binnacle/cmd/internal/startlog"
	"github.com/binnacle-project/binnacle/gateway"
	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/worker"
)

// Exit codes.
const (
	exitFailed = 1 // the command could not do its work; check found faults
	exitUsage  = 2 // flags or arguments are wrong, or a file cannot be read
)

func main() {
	// A worker has signals of its own, so it comes before all else.
	if len(os.Args) > 1 && os.Args[1] == workerCommand {
		os.Exit(worker.Main())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// workerCommand is what an agent starts this program with.
const workerCommand = "worker"

// usageError marks errors of flags and arguments.
type usageError struct{ error }

// errFaults ends a check that found faults, which are printed already.
var errFaults = errors.New("the configuration has faults")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var u usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFaults):
		return exitFailed
	case errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(stderr, "binnacle-gateway: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "binnacle-gateway: %v\n", err)
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "binnacle-gateway",
		Short:         "A KrakenD-compatible API gateway, alone or as a node of a Binnacle cluster",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRun(), newCheck(), newStatus(), newSupervise(), newVersion())
	return root
}

// noArgs refuses arguments in the words of a usage error.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// config is the -c flag that most commands have, as krakend's users know it.
func config(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", "krakend.json", "the gateway's configuration file")
}

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Serve a configuration; with an @cluster block in it, as a node of a cluster",
		Args:  noArgs,
	}
	file := config(cmd)
	dieWithParent := cmd.Flags().Bool("die-with-parent", false, "end the worker with this process, whatever ends it (demos and tests); otherwise it serves on until the next start")
	delay := cmd.Flags().Duration("drain-delay", agent.DefaultOptions().DrainDelay, "how long to serve on after SIGTERM, not ready, so that load balancers notice; outweighs drain_delay of the @cluster block")
	format := cmd.Flags().String("log-format", "text", "text or json")
	level := cmd.Flags().String("log-level", "info", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := logLevel(*format, *level)
		if err != nil {
			return err
		}
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		if !cmd.Flags().Changed("drain-delay") {
			delay = nil
		} else if *delay < 0 {
			return usageError{fmt.Errorf("--drain-delay %v: want 0 or more", *delay)}
		}
		return gateway.Run(cmd.Context(), gateway.Options{
			DrainDelay: delay,
			ConfigFile: *file, DieWithParent: *dieWithParent,
			LogFormat: *format, LogLevel: l.String(), Reload: hup,
			Log: worker.NewLogger(cmd.ErrOrStderr(), *format, l.String()),
		})
	}
	return cmd
}

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Say every reason why a configuration would not run, by building all of it without opening a port",
		Args:  noArgs,
	}
	file := config(cmd)
	format := cmd.Flags().String("format", "text", "text, or json: an array of faults on stdout, [] when there are none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *format != "text" && *format != "json" {
			return usageError{fmt.Errorf("--format %q: want text or json", *format)}
		}
		faults, warnings, err := gateway.Check(cmd.Context(), *file)
		if err != nil {
			return usageError{err}
		}
		for _, w := range warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", faultLine(w))
		}
		out := cmd.OutOrStdout()
		if *format == "json" {
			if faults == nil {
				faults = []api.Fault{}
			}
			if err := json.NewEncoder(out).Encode(faults); err != nil {
				return err
			}
		} else {
			for _, f := range faults {
				fmt.Fprintln(out, faultLine(f))
			}
			if len(faults) == 0 {
				fmt.Fprintf(out, "%s: no faults\n", *file)
			}
		}
		if len(faults) > 0 {
			return errFaults
		}
		return nil
	}
	return cmd
}

// faultLine prints one fault as "stage: line 3, column 4: /path: message".
func faultLine(f api.Fault) string {
	var b strings.Builder
	b.WriteString(f.Stage)
	if f.Line > 0 {
		fmt.Fprintf(&b, ": line %d, column %d", f.Line, f.Column)
	}
	if f.Path != "" {
		b.WriteString(": " + f.Path)
	}
	b.WriteString(": " + f.Message)
	return b.String()
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "binnacle-gateway", binnacle.Version)
			return err
		},
	}
}
