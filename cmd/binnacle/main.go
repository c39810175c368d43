// Command binnacle is the operator's command line: it shows the fleet, pushes
// configurations and follows rollouts through the manager's API, handles
// licenses and tokens, and starts the demo cluster. It holds flags and output
// only; what it calls stands in api, licensing and demo.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Exit codes.
const (
	exitFailed  = 1 // the command could not do its work
	exitUsage   = 2 // flags or arguments are wrong
	exitRefused = 3 // the manager refused: a faulty configuration, no right, a full cluster
	exitRollout = 4 // a rollout ended otherwise than completed: it failed and was rolled back, or was aborted
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

// connection holds the flags that every command talking to a manager has.
type connection struct {
	manager, tokenFile, caFile string
	output                     string
}

func newRoot() *cobra.Command {
	var conn connection
	root := &cobra.Command{
		Use:           "binnacle",
		Short:         "See and steer a cluster of API gateways",
		Version:       binnacle.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see '%s --help')", err, c.CommandPath())}
	})
	f := root.PersistentFlags()
	f.StringVar(&conn.manager, "manager", envOr("BINNACLE_MANAGER", "http://127.0.0.1:9897"), "address of the manager's API (`URL`; BINNACLE_MANAGER)")
	f.StringVar(&conn.tokenFile, "token-file", os.Getenv("BINNACLE_TOKEN_FILE"), "`FILE` with the API token (BINNACLE_TOKEN_FILE); the token itself may stand in BINNACLE_TOKEN")
	f.StringVar(&conn.caFile, "ca-file", os.Getenv("BINNACLE_CA_FILE"), "PEM `FILE` with the authority of an https manager, such as the ca.pem of --tls=auto (BINNACLE_CA_FILE)")
	f.StringVarP(&conn.output, "output", "o", "table", "output as `FORMAT`: table or json")
	root.AddCommand(
		newDemo(&conn), newStatus(&conn), newNodes(&conn), newBackends(&conn), newEvents(&conn),
		newConfig(&conn), newRollout(&conn), newRollback(&conn), newRestart(&conn),
		newDrain(&conn, "drain", "Keep a node up but let its traffic move to the others"),
		newDrain(&conn, "undrain", "Let a drained node take traffic again"),
		newLicense(&conn), newToken(&conn),
	)
	return root
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// client returns a client for the flags.
func (c *connection) client() (*api.Client, error) {
	token := os.Getenv("BINNACLE_TOKEN")
	if c.tokenFile != "" {
		b, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--token-file: %w", err)}
		}
		token = strings.TrimSpace(string(b))
	}
	hc, err := trusting(c.caFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--ca-file: %w", err)}
	}
	client, err := api.NewClient(c.manager, token, hc)
	if err != nil {
		return nil, usageError{fmt.Errorf("--manager: %w", err)}
	}
	if c.output != "table" && c.output != "json" {
		return nil, usageError{fmt.Errorf("--output %q: want table or json", c.output)}
	}
	return client, nil
}

// trusting returns an HTTP client that trusts the authorities in a PEM file and
// no others, or nil for no file.
func trusting(caFile string) (*http.Client, error) {
	if caFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no PEM certificate", caFile)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: t}, nil
}

// callTimeout bounds one call of the API.
const callTimeout = 30 * time.Second

// call runs f with a client and a bounded context.
func (c *connection) call(cmd *cobra.Command, f func(ctx context.Context, client *api.Client) error) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
	defer cancel()
	return f(ctx, client)
}
