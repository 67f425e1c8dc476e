package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"postern/operate"
)

func (a *app) certExport() *cobra.Command {
	var der bool
	var out string
	cmd := &cobra.Command{
		Use:   "export [NAME]",
		Short: "Write a certificate for devices that have to be told to trust it",
		Long: `Write the certificate that listeners present, without its key, for devices that have to be told to
trust it. NAME is a name that it covers, or its SHA-256; without it, the first that there is. PEM has the certificate
and those of its authorities; --der has one, the topmost of these.`,
		Example: `  postern cert export > relay.pem
  postern cert export relay.example.com --der --out relay.der`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			form := operate.PEM
			if der {
				form = operate.DER
			}
			which := strings.Join(args, "")
			if asJSON(cmd) {
				return exportJSON(cmd, ops, which)
			}
			f, err := ops.Certificates.File(cmd.Context(), me(), which, form)
			if err != nil {
				return err
			}
			if out == "-" {
				_, err = cmd.OutOrStdout().Write(f.Data)
				return err
			}
			if err := os.WriteFile(out, f.Data, 0o644); err != nil { // everybody may see it
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Wrote %s.\n", out)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&der, "der", false, "in binary form (DER), which some devices want")
	cmd.Flags().StringVar(&out, "out", "-", "`file` to write, - for standard output")
	return withJSON(cmd)
}

// exportJSON prints both forms, as the API does.
func exportJSON(cmd *cobra.Command, ops *operate.Operations, which string) error {
	text, err := ops.Certificates.File(cmd.Context(), me(), which, operate.PEM)
	if err != nil {
		return err
	}
	one, err := ops.Certificates.File(cmd.Context(), me(), which, operate.DER)
	if err != nil {
		return err
	}
	return writeJSON(cmd.OutOrStdout(), map[string]any{"pem": string(text.Data), "der": one.Data})
}
