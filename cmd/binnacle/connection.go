package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/binnacle-project/binnacle/api"
)

// defaultManager is asked when neither flag nor environment nor context name
// another.
const defaultManager = "http://127.0.0.1:9897"

// connection holds the flags that every command talking to a manager has.
type connection struct {
	context                    string
	manager, tokenFile, caFile string
	output                     string
	noColor                    bool
	// watch is the period of --watch, for the commands that have the flag.
	watch time.Duration
}

func (c *connection) register(f *pflag.FlagSet) {
	f.StringVar(&c.context, "context", "", "`NAME` of the context to use (BINNACLE_CONTEXT; see `binnacle context`)")
	f.StringVar(&c.manager, "manager", "", "address of the manager's API (`URL`; BINNACLE_MANAGER; default "+defaultManager+")")
	f.StringVar(&c.tokenFile, "token-file", "", "`FILE` with the API token (BINNACLE_TOKEN_FILE); the token itself may stand in BINNACLE_TOKEN")
	f.StringVar(&c.caFile, "ca-file", "", "PEM `FILE` with the authority of an https manager, such as the ca.pem of --tls=auto (BINNACLE_CA_FILE)")
	f.StringVarP(&c.output, "output", "o", "table", "output as `FORMAT`: table, json or yaml")
	f.BoolVar(&c.noColor, "no-color", false, "no colors (NO_COLOR; never when the output is no terminal)")
}

// target is where a command goes and as whom, after flags, environment and
// context file.
type target struct {
	Manager   string `yaml:"manager"`
	TokenFile string `yaml:"token_file,omitempty"`
	CAFile    string `yaml:"ca_file,omitempty"`
}

// target finds the manager: a flag beats the environment, which beats the
// context. Where another manager is named than the context's, the context's
// token is not sent there.
func (c *connection) target() (target, error) {
	var t target
	name := firstOf(c.context, os.Getenv("BINNACLE_CONTEXT"))
	manager := firstOf(c.manager, os.Getenv("BINNACLE_MANAGER"))
	if name != "" || manager == "" {
		file, err := readContexts()
		if err != nil {
			return t, err
		}
		if name == "" {
			name = file.Current
		}
		if name != "" {
			found, ok := file.Contexts[name]
			if !ok {
				return t, usageError{fmt.Errorf("there is no context %q: `binnacle context list` shows them, `binnacle context add` makes one", name)}
			}
			t = found
		}
	}
	if manager != "" && manager != t.Manager {
		t = target{Manager: manager}
	}
	t.Manager = firstOf(t.Manager, defaultManager)
	t.TokenFile = firstOf(c.tokenFile, os.Getenv("BINNACLE_TOKEN_FILE"), t.TokenFile)
	t.CAFile = firstOf(c.caFile, os.Getenv("BINNACLE_CA_FILE"), t.CAFile)
	return t, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// client returns a client for the flags.
func (c *connection) client() (*api.Client, error) {
	switch c.output {
	case "table", "json", "yaml":
	default:
		return nil, usageError{fmt.Errorf("--output %q: want table, json or yaml", c.output)}
	}
	t, err := c.target()
	if err != nil {
		return nil, err
	}
	token := os.Getenv("BINNACLE_TOKEN")
	if t.TokenFile != "" {
		b, err := os.ReadFile(t.TokenFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--token-file: %w", err)}
		}
		token = strings.TrimSpace(string(b))
	}
	hc, err := trusting(t.CAFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--ca-file: %w", err)}
	}
	client, err := api.NewClient(t.Manager, token, hc)
	if err != nil {
		return nil, usageError{fmt.Errorf("--manager: %w", err)}
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
	if c.watch != 0 {
		return c.repeat(cmd, client, f)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
	defer cancel()
	return f(ctx, client)
}

// minWatch keeps a slip of the finger from becoming load.
const minWatch = 200 * time.Millisecond

// watchable gives cmd the flag --watch, which repeats it.
func (c *connection) watchable(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.DurationVarP(&c.watch, "watch", "w", 0, "show it again each `PERIOD` (2s when none is given), until Ctrl-C")
	f.Lookup("watch").NoOptDefVal = "2s"
	return cmd
}

// repeat runs f until the person has seen enough, which is no error. A manager
// that is away for a moment does not end it.
func (c *connection) repeat(cmd *cobra.Command, client *api.Client, f func(context.Context, *api.Client) error) error {
	if c.watch < minWatch {
		return usageError{fmt.Errorf("--watch %v: want at least %v", c.watch, minWatch)}
	}
	out := cmd.OutOrStdout()
	tick := time.NewTicker(c.watch)
	defer tick.Stop()
	for first := true; ; first = false {
		if c.output == "table" {
			clearScreen(out, first)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
		err := f(ctx, client)
		cancel()
		if cmd.Context().Err() != nil {
			return nil
		}
		if err != nil && (first || !errors.Is(err, api.ErrUnreachable)) {
			return err
		} else if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "binnacle: %v; trying on\n", err)
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}
