// Command binnacle is the operator's command line: it shows the fleet, pushes
// configurations and follows rollouts through the manager's API, handles
// licenses and tokens, and starts the demo cluster. It holds flags and output
// only; what it calls stands in api, licensing and demo.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	_ "github.com/binnacle-project/binnacle/cmd/internal/startlog"
)

// Exit codes.
const (
	exitFailed  = 1 // the command could not do its work
	exitUsage   = 2 // flags or arguments are wrong
	exitRefused = 3 // the manager refused: a faulty configuration, no right, a full cluster
	exitRollout = 4 // a rollout ended otherwise than completed: it failed and was rolled back, or was aborted
	exitAway    = 5 // no manager answered
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError marks errors of flags and arguments.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var p *api.Problem
	var u usageError
	switch {
	case errors.Is(err, context.Canceled):
		return exitFailed
	case errors.Is(err, api.ErrUnreachable):
		fmt.Fprintf(stderr, "binnacle: %v\n  is it running, and is this its address? --manager, BINNACLE_MANAGER or `binnacle context` name another\n", err)
		return exitAway
	case errors.As(err, &p):
		printProblem(stderr, p)
		return exitRefused
	case errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(stderr, "binnacle: %v\n", err)
		return exitUsage
	case errors.Is(err, errNeedsYes):
		fmt.Fprintf(stderr, "binnacle: %v\n", err)
		return exitRefused
	case errors.Is(err, errRollout):
		fmt.Fprintf(stderr, "binnacle: %v\n", err)
		return exitRollout
	}
	fmt.Fprintf(stderr, "binnacle: %v\n", err)
	return exitFailed
}

func printProblem(w io.Writer, p *api.Problem) {
	fmt.Fprintf(w, "binnacle: %v\n", p)
	switch p.Status {
	case http.StatusUnauthorized:
		fmt.Fprintln(w, "  name a token file with --token-file, BINNACLE_TOKEN_FILE or `binnacle context add`; the manager's first start made admin.token and reader.token")
	case http.StatusForbidden:
		fmt.Fprintln(w, "  `binnacle whoami` says who you are to the manager")
	}
	for _, f := range p.Faults {
		fmt.Fprintf(w, "  %s\n", faultLine(f))
	}
}

func faultLine(f api.Fault) string {
	var where string
	if f.Line > 0 {
		where = fmt.Sprintf(" line %d, column %d", f.Line, f.Column)
	}
	if f.Path != "" {
		where += " " + f.Path
	}
	return f.Stage + where + ": " + f.Message
}

func newRoot() *cobra.Command {
	var conn connection
	root := &cobra.Command{
		Use:   "binnacle",
		Short: "See and steer a cluster of API gateways",
		Long: `Binnacle shows a cluster of API gateways and steers it, through the API of its manager.

The manager is found by --manager, else BINNACLE_MANAGER, else the context in use (binnacle
context), else at ` + defaultManager + `. Callers from loopback may look without a token;
everything else needs one (--token-file).

Exit codes: 0 done; 1 it could not be done; 2 flags or arguments are wrong; 3 the manager refused:
a faulty configuration, no right, an endpoint with traffic would go; 4 a rollout ended otherwise
than completed; 5 no manager answered.`,
		Version:       binnacle.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see '%s --help')", err, c.CommandPath())}
	})
	conn.register(root.PersistentFlags())
	group := func(id, title string, cmds ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("see", "See the cluster:",
		newStatus(&conn), newTop(&conn), newNodes(&conn), newBackends(&conn), newActivity(&conn),
		newEvents(&conn), newTraces(&conn), newQuery(&conn))
	group("steer", "Steer it:",
		newConfig(&conn), newRollout(&conn), newRollback(&conn), newRestart(&conn),
		newDrain(&conn, "drain", "Keep a node up but let its traffic move to the others"),
		newDrain(&conn, "undrain", "Let a drained node take traffic again"))
	group("admin", "Look after it:",
		newLicense(&conn), newToken(&conn), newBackup(&conn), newGrafana(&conn), newDiscovery(&conn), newHealth(&conn))
	group("this", "This command and machine:",
		newContext(&conn), newWhoami(&conn), newLogin(&conn), newAPI(&conn), newDemo(&conn))
	completions(root, &conn)
	return root
}

// noArgs and exactArgs are cobra's checks as errors of usage.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, and got %q (see '%s --help')", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("want: %s (see '%s --help')", cmd.UseLine(), cmd.CommandPath())}
		}
		return nil
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{fmt.Errorf("want: %s (see '%s --help')", cmd.UseLine(), cmd.CommandPath())}
		}
		return nil
	}
}
