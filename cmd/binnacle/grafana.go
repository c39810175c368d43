package main

import "github.com/spf13/cobra"

func newGrafana(conn *connection) *cobra.Command {
	return &cobra.Command{Use: "grafana", Short: "Bring the dashboards into a Grafana"}
}
