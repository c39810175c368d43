package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/manager"
)

func newRestore() *cobra.Command {
	dir := manager.DefaultOptions().DataDir
	var from string
	cmd := &cobra.Command{
		Use:   "restore --data-dir DIR --from FILE",
		Short: "Make the control state anew from a snapshot of binnacle backup",
		Long: `Restore fills the folder state below --data-dir from a snapshot. Stop the manager first, and move the
old folder state away if there is one: it is never overwritten. The cluster key (the folder ca) must
be the one of the cluster, or every node has to enroll anew.

Nodes notice that the state is a restored one and take its plans, also where they are older than
what they hold. What happened after the snapshot is forgotten: nodes that enrolled since then ask to
enroll again, by their token.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				return errors.New("--from is missing: the snapshot to restore")
			}
			f, err := os.Open(from)
			if err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			defer f.Close()
			log, err := newLogger(cmd.ErrOrStderr(), "warn", "text")
			if err != nil {
				return err
			}
			done, err := manager.Restore(cmd.Context(), dir, f, log)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "restored %d entries of %s, epoch %d becomes %d: start the manager\n",
				done.Snapshot.Keys, done.Snapshot.Taken.Local().Format(time.DateTime), done.Snapshot.Epoch, done.Epoch)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", dir, "`DIR` of the manager")
	cmd.Flags().StringVar(&from, "from", "", "the snapshot `FILE`")
	return cmd
}
