package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
)

func newLicenseSimulate(conn *connection) *cobra.Command {
	var expireIn, managerGone string
	cmd := &cobra.Command{
		Use:   "simulate --expire-in DURATION | --manager-gone DURATION",
		Short: "Show node by node what would happen, and change nothing",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (expireIn == "") == (managerGone == "") {
				return usageError{errors.New("give one of --expire-in and --manager-gone")}
			}
			flag, text := "--expire-in", expireIn
			if managerGone != "" {
				flag, text = "--manager-gone", managerGone
			}
			d, err := parseDays(text)
			if err != nil {
				return usageError{fmt.Errorf("%s %q: %w", flag, text, err)}
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				ask := c.SimulateExpiry
				if managerGone != "" {
					ask = c.SimulateOutage
				}
				s, err := ask(ctx, d)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), s, func(w io.Writer) { printSimulation(w, s) })
			})
		},
	}
	cmd.Flags().StringVar(&expireIn, "expire-in", "", "the license expires after `DURATION`, such as 0s or 30d")
	cmd.Flags().StringVar(&managerGone, "manager-gone", "", "no manager answers for `DURATION`, such as 6d")
	return cmd
}

func printSimulation(w io.Writer, s api.Simulation) {
	fmt.Fprintf(w, "Nothing is changed. If %s:\n%s\n\n", s.Scenario, s.Summary)
	fmt.Fprintln(w, "NAME\tGROUP\tLEASE THEN\tWARNS\tFALLS\tREQUESTS\tEFFECT")
	moment := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.Local().Format(time.DateTime)
	}
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.0f/s\t%s\n", n.Name, n.Group, n.State, moment(n.Warns), moment(n.Falls), n.RequestsPerSecond, n.Effect)
	}
}

// parseDays reads a duration as Go writes it, or whole days with a d before the
// rest: 6d, 1d12h.
func parseDays(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	var d time.Duration
	rest := s
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, errors.New("want a duration such as 0s, 36h or 6d")
		}
		d, rest = time.Duration(n)*day, after
	}
	if rest != "" || s == "" {
		more, err := time.ParseDuration(rest)
		if err != nil || more < 0 {
			return 0, errors.New("want a duration such as 0s, 36h or 6d")
		}
		d += more
	}
	return d, nil
}

// seconds writes a period that the API gives in seconds.
func seconds(f float64) string {
	const day = 24 * time.Hour
	d := time.Duration(f * float64(time.Second))
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}
