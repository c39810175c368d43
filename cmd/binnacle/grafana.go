package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/grafana"
)

func newGrafana(conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "grafana", Short: "Bring the dashboards into a Grafana, or write them to files"}
	cmd.AddCommand(newGrafanaProvision(conn), newGrafanaExport())
	return cmd
}

func newGrafanaProvision(conn *connection) *cobra.Command {
	var in grafana.Installer
	var tokenFile, readerFile string
	cmd := &cobra.Command{
		Use:   "provision --url URL",
		Short: "Install data sources and dashboards into a running Grafana",
		Long: `Provision makes two data sources (metrics and traces of the manager), a folder and the dashboards,
through Grafana's HTTP API. It changes only what it made before, so run it again after an upgrade.

The token is one of a Grafana service account with the role Admin, which data sources need. Grafana
reaches the manager at --manager-url with the token of --reader-token-file: give it the manager's
reader.token. Without it, data sources that exist keep the token they have.`,
		Example: `  binnacle grafana provision --url http://grafana:3000 --grafana-token-file grafana.token \
    --manager-url http://10.0.0.5:9897 --reader-token-file /var/lib/binnacle/tokens/reader.token`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := conn.target()
			if err != nil {
				return err
			}
			in.ManagerURL = firstOf(in.ManagerURL, t.Manager)
			if in.URL == "" {
				return usageError{errors.New("--url is missing: the address of Grafana, such as http://grafana:3000")}
			}
			for _, f := range []struct {
				flag, file string
				to         *string
			}{{"--grafana-token-file", tokenFile, &in.Token}, {"--reader-token-file", readerFile, &in.ReaderToken}} {
				if f.file == "" {
					continue
				}
				b, err := os.ReadFile(f.file)
				if err != nil {
					return usageError{fmt.Errorf("%s: %w", f.flag, err)}
				}
				*f.to = strings.TrimSpace(string(b))
			}
			in.Token = firstOf(in.Token, os.Getenv("GRAFANA_TOKEN"))
			if in.Token == "" {
				return usageError{errors.New("no token of Grafana: --grafana-token-file, --token or GRAFANA_TOKEN")}
			}
			in.Say = func(format string, args ...any) { fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...) }
			return in.Install(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.URL, "url", os.Getenv("GRAFANA_URL"), "address of Grafana (`URL`; GRAFANA_URL)")
	f.StringVar(&tokenFile, "grafana-token-file", "", "`FILE` with the token of a Grafana service account")
	f.StringVar(&in.Token, "token", "", "that token itself (`TOKEN`; GRAFANA_TOKEN); others on this machine may see it, a file is better")
	f.StringVar(&in.ManagerURL, "manager-url", "", "`URL` at which Grafana reaches the manager (default the one this command uses)")
	f.StringVar(&readerFile, "reader-token-file", "", "`FILE` with the manager's token for Grafana, reader.token of the first start")
	return cmd
}

func newGrafanaExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export DIR",
		Short: "Write dashboards and provisioning files below DIR",
		Long: `Export writes dashboards/*.json and provisioning/: mount the one at
/var/lib/grafana/dashboards/binnacle and the other at /etc/grafana/provisioning. The manager serves
the same files at /grafana/.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			err := fs.WalkDir(grafana.Files, ".", func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				to := filepath.Join(args[0], filepath.FromSlash(path))
				if d.IsDir() {
					return os.MkdirAll(to, 0o755)
				}
				b, err := fs.ReadFile(grafana.Files, path)
				if err != nil {
					return err
				}
				n++
				return os.WriteFile(to, b, 0o644)
			})
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%d files below %s\n", n, args[0])
			}
			return err
		},
	}
}
