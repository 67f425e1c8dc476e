package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"postern/operate"
)

func (a *app) dkimRotate() *cobra.Command {
	var algorithms []string
	cmd := &cobra.Command{
		Use:   "rotate DOMAIN",
		Short: "Make keys that replace those of a domain once their records are published",
		Long: `Make new keys for a domain that signs, and print the DNS records to publish. The old keys go on signing
until the resolver and all name servers of the domain have the records of all new ones, and still have them an hour
later: a resolver that asked too early may remember for so long that there is none. Then the new ones sign, and the old
ones retire: their records must stay for eight days, for mail on its way. 'postern dkim list' says what is to be done
when.`,
		Args: exactly(1),
		RunE: a.makeKeys(func(ctx context.Context, of operate.Keys, domain string) ([]operate.Key, error) {
			return of.Rotate(ctx, me(), domain, algorithms)
		}),
	}
	cmd.Flags().StringSliceVar(&algorithms, "algorithm", nil, "kinds of keys to make; default: those that sign now")
	return withJSON(cmd)
}

func (a *app) dkimRetire() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "retire DOMAIN SELECTOR",
		Short: "Let a key sign no more; its record stays in DNS for eight days",
		Args:  exactly(2),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			if err := ops.Keys.Retire(cmd.Context(), me(), args[0], args[1], force); err != nil {
				return keyError(cmd, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s signs no more. Keep its record in DNS as long as postern dkim list "+
				"says.\n", args[1])
			return nil
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if mail then leaves without a signature")
	return cmd
}

func (a *app) dkimRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove DOMAIN SELECTOR",
		Short: "Delete a key for good that is not needed any more",
		Args:  exactly(2),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			if err := ops.Keys.Remove(cmd.Context(), me(), args[0], args[1], force); err != nil {
				return keyError(cmd, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Removed %s of %s.\n", args[1], args[0])
			return nil
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if it signs, or its record may still be needed")
	return cmd
}

// keyError is an error of an operation on a key: what cannot be one is wrong usage.
func keyError(cmd *cobra.Command, err error) error {
	if kind, known := operate.KindOf(err); known && kind == operate.Invalid {
		return usage(cmd, err)
	}
	return err
}
