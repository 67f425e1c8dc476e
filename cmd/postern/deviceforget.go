package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/operate"
)

func (a *app) deviceForget() *cobra.Command {
	var f operate.Forgetting
	cmd := &cobra.Command{
		Use:   "forget ADDRESS",
		Short: "Propose a device that was seen while learning no more",
		Long: `Propose a device no more, until it sends again while learning. What is held of it stays so, or is deleted
with --delete; nobody is told.`,
		Example: `  postern device forget 10.0.5.31 --delete`,
		Args:    exactly(1),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			f.Address = args[0]
			n, err := ops.Devices.Forget(cmd.Context(), me(), f)
			if err != nil {
				return things.explain(cmd, err)
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), map[string]any{"address": f.Address, "deleted": n})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The device at %s is proposed no more. Messages deleted: %d.\n",
				f.Address, n)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&f.Delete, "delete", false, "delete what is held of it, too")
	return withJSON(cmd)
}
