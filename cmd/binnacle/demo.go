package main

import (
	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/demo"
)

func newDemo(conn *connection) *cobra.Command {
	o := demo.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Start a whole cluster on this machine: a manager, gateways, backends and traffic",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if err := o.Validate(); err != nil {
				return usageError{err}
			}
			return demo.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", o.Dir, "`DIR` for data, tokens and logs; a second start continues with it")
	f.IntVar(&o.Nodes, "nodes", o.Nodes, "`NUMBER` of gateways")
	f.IntVar(&o.PortOffset, "port-offset", o.PortOffset, "`NUMBER` added to every port")
	f.Float64Var(&o.RequestsPerSecond, "rate", o.RequestsPerSecond, "requests per second of the traffic source, 0 for none (`NUMBER`)")
	f.StringVar(&o.BinDir, "bin-dir", o.BinDir, "`DIR` of binnacle-manager and binnacle-gateway (default beside this program)")
	cmd.AddCommand(newDemoBackends(), newDemoTraffic(conn))
	return cmd
}

func newDemoBackends() *cobra.Command {
	addr := "127.0.0.1:8061"
	cmd := &cobra.Command{
		Use:   "backends",
		Short: "Serve only the four backends of the demo",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Backends(cmd.Context(), addr, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&addr, "addr", addr, "`ADDR` of the first; the others take the next ports")
	return cmd
}

func newDemoTraffic(conn *connection) *cobra.Command {
	rate := demo.DefaultOptions().RequestsPerSecond
	cmd := &cobra.Command{
		Use:   "traffic",
		Short: "Send only the traffic of the demo, to the nodes that the manager's discovery names",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			demo.Traffic(cmd.Context(), client, rate)
			return nil
		},
	}
	cmd.Flags().Float64Var(&rate, "rate", rate, "requests per second (`NUMBER`)")
	return cmd
}
