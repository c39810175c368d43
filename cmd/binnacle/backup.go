package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/state"
)

func newBackup(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Save a snapshot of the control state while the manager runs",
		Long: `Backup saves who the nodes are, tokens, revisions, rollouts, the license and events. It reads the
snapshot back before it puts it in place of FILE. What it holds is secret: the file has mode 0600.

The cluster key (ca/), the license issuer's key (license/) and the page's authority (tls/) below the
manager's --data-dir never change: copy them once. Telemetry is not part of it.
binnacle-manager restore brings a snapshot back.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			next := args[0] + ".part"
			f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
			if err != nil {
				return usageError{err}
			}
			defer os.Remove(next)
			defer f.Close()
			n, err := client.Backup(cmd.Context(), f)
			if err != nil {
				return err
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			info, err := state.ReadSnapshot(f, func(state.KV) error { return nil })
			if err != nil {
				return fmt.Errorf("the snapshot that came is damaged, %s is as it was: %w", args[0], err)
			}
			if err := errors.Join(f.Sync(), f.Close(), os.Rename(next, args[0])); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d entries, %d bytes, epoch %d\n", args[0], info.Keys, n, info.Epoch)
			return nil
		},
	}
}
