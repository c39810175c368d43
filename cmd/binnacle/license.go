package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

func newLicense(conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "license", Short: "Show, install, issue and inspect licenses", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				l, err := c.License(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), l, func(w io.Writer) { printLicense(w, l) })
			})
		},
	}
	cmd.AddCommand(newLicenseKeygen(), newLicenseIssue(), newLicenseInspect(), newLicenseInstall(conn), newLicenseSimulate(conn))
	return cmd
}

func printLicense(w io.Writer, l api.License) {
	fmt.Fprintf(w, "plan\t%s\t%s\n", l.Plan, l.State)
	fmt.Fprintf(w, "customer\t%s\n", l.Customer)
	fmt.Fprintf(w, "issuer\t%s\n", l.Issuer)
	fmt.Fprintf(w, "seats\t%d of %s\n", l.SeatsUsed, seats(l.Seats))
	if l.OverSeats > 0 {
		fmt.Fprintf(w, "over seats\t%d: a node keeps its lease to the end, and gets no other until a seat is free\n", l.OverSeats)
	}
	fmt.Fprintf(w, "expires\t%s\n", when(l.Expires))
	if l.Left != nil && l.Grace > 0 {
		fmt.Fprintf(w, "grace\t%s after that\n", seconds(l.Grace))
	}
	fmt.Fprintf(w, "leases\t%d valid, %d warning, %d fallen; a node goes on for %s without a manager\n", l.Leases[licensing.LeaseValid], l.Leases[licensing.LeaseWarning], l.Leases[licensing.LeaseFallen], seconds(l.LeaseLife))
	fmt.Fprintf(w, "fallback\t%s\n", fallback(l.FallbackRate))
	if l.Problem != "" {
		fmt.Fprintf(w, "problem\t%s\n", l.Problem)
	}
}

func seats(n int) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	days := int(time.Until(t).Hours() / 24)
	return fmt.Sprintf("%s (%d days)", t.Local().Format(time.DateTime), days)
}

func fallback(r *float64) string {
	if r == nil {
		return "no limit after the end of a lease"
	}
	return fmt.Sprintf("%g requests/s per node after the end of a lease", *r)
}

func newLicenseKeygen() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make an issuer key: FILE signs licenses, FILE.pub is for --license-keys of managers",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usageError{errors.New("--out is missing: name the file for the private key")}
			}
			if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s exists: an issuer key is never overwritten", out)
			}
			key, err := licensing.GenerateIssuer()
			if err != nil {
				return err
			}
			if err := licensing.WriteIssuerKey(out, key); err != nil {
				return err
			}
			if err := os.WriteFile(out+".pub", key.Public().PEM(), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s signs licenses: keep it offline\n%s.pub verifies them: give it to managers with --license-keys\nkey id %s\n", out, out, key.Public().ID())
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` for the private key, mode 0600")
	return cmd
}

func newLicenseIssue() *cobra.Command {
	var c licensing.Claims
	var keyFile, out string
	var expiresIn, notBeforeIn time.Duration
	var rate float64
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "Sign a license",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keyFile == "" {
				return usageError{errors.New("--key is missing: name the issuer's private key (`binnacle license keygen` makes one)")}
			}
			key, err := licensing.ReadIssuerKey(keyFile)
			if err != nil {
				return err
			}
			now := time.Now()
			if expiresIn > 0 {
				c.Expires = now.Add(expiresIn)
			}
			if notBeforeIn > 0 {
				c.NotBefore = now.Add(notBeforeIn)
			}
			if rate >= 0 {
				c.FallbackRate = &rate
			}
			token, err := licensing.Issue(key, c)
			if err != nil {
				return err
			}
			if out == "" || out == "-" {
				fmt.Fprintln(cmd.OutOrStdout(), token)
				return nil
			}
			if err := os.WriteFile(out, []byte(token+"\n"), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: plan %s for %s, %s seats, expires %s\n", out, c.Plan, c.Customer, seats(c.Seats), when(c.Expires))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyFile, "key", "", "`FILE` with the issuer's private key")
	f.StringVar(&out, "out", "-", "`FILE` for the license, - for standard output")
	f.StringVar(&c.Issuer, "issuer", "", "`NAME` of the issuer")
	f.StringVar(&c.Customer, "customer", "", "`NAME` of the holder")
	f.StringVar(&c.Plan, "plan", "team", "`NAME` of the plan")
	f.StringVar(&c.Cluster, "cluster", "", "bind it to the cluster with this key `FINGERPRINT`; empty is any cluster")
	f.IntVar(&c.Seats, "seats", 0, "how many nodes may run, 0 for unlimited (`NUMBER`)")
	f.StringSliceVar(&c.Features, "feature", nil, "a `FEATURE` it grants; may be given several times")
	f.DurationVar(&expiresIn, "expires-in", 365*24*time.Hour, "`DURATION` until it ends; 0 is never")
	f.DurationVar(&notBeforeIn, "not-before-in", 0, "`DURATION` until it begins")
	f.DurationVar(&c.Grace, "grace", 7*24*time.Hour, "`DURATION` that nodes go on after the end")
	f.Float64Var(&rate, "fallback-rate", licensing.DefaultFallbackRate, "requests per second of a node whose lease ended; negative is no limit (`NUMBER`)")
	return cmd
}

func newLicenseInspect() *cobra.Command {
	var keys, cluster string
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a license says, and with --keys whether it is any good",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readFile(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			token := strings.TrimSpace(string(b))
			l, err := licensing.InspectLicense(token)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintf(w, "license\t%s\nissuer\t%s (key %s)\ncustomer\t%s\nplan\t%s\nseats\t%s\nfeatures\t%s\nissued\t%s\nexpires\t%s\ngrace\t%v\nfallback\t%s\n",
				l.ID, l.Issuer, l.KeyID, l.Customer, l.Plan, seats(l.Seats), strings.Join(l.Features, ", "), l.Issued.Local().Format(time.DateTime), when(l.Expires), l.Grace, fallback(l.FallbackRate))
			if l.Cluster != "" {
				fmt.Fprintf(w, "cluster\tonly %s\n", l.Cluster)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if keys == "" {
				fmt.Fprintln(cmd.OutOrStdout(), "\nsignature not checked: name the issuer's public key with --keys")
			} else {
				pub, err := licensing.ReadIssuerPublicKeys(keys)
				if err != nil {
					return err
				}
				holder := cluster
				if holder == "" {
					holder = l.Cluster // shown above; not the question here
				}
				if _, err := licensing.ParseLicense(token, pub, holder, time.Now()); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				fmt.Fprintln(cmd.OutOrStdout(), "\nvalid: signed by a key of", keys)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "\nPlans:")
			w = tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "PLAN\tSEATS\tENDS\tGOSSIP\tREMOTE CONFIG\tRATE\tWHEN")
			for _, p := range licensing.Plans {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Seats, p.Ends, yes(p.Gossip), yes(p.RemoteConfig), p.Rate, p.When)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "", "`FILE` with issuer public keys to check the signature against")
	cmd.Flags().StringVar(&cluster, "cluster", "", "`FINGERPRINT` of the cluster key to check the binding against")
	return cmd
}

func newLicenseInstall(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "install FILE",
		Short: "Put a license in force while everything runs",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readFile(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				l, err := c.InstallLicense(ctx, strings.TrimSpace(string(b)))
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), l, func(w io.Writer) { printLicense(w, l) })
			})
		},
	}
}
