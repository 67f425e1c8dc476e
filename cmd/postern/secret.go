package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/internal/dpapi"
)

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Seal secrets for relay.toml on Windows",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "protect",
		Short: "Seal a password or token, and print it for relay.toml",
		Long: `Read one line from the terminal, where it is not shown, or from standard input, have Windows seal
it (DPAPI), and print what to write in relay.toml wherever a secret may stand: password = "dpapi:…".

It opens on this installation of Windows only: a copy of relay.toml is worth nothing elsewhere, and after Windows
was installed anew the secret has to be sealed again. Every program of this machine could open it, so that the
rights of relay.toml still matter.`,
		Example: `  postern secret protect
  Get-Content key.txt | postern secret protect`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := askSecret(cmd)
			if err != nil {
				return err
			}
			sealed, err := dpapi.Seal([]byte(secret))
			if errors.Is(err, dpapi.ErrElsewhere) {
				return fmt.Errorf("dpapi: %w", err)
			} else if err != nil {
				return fmt.Errorf("sealing by Windows: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), sealed)
			return err
		},
	})
	return cmd
}

// askSecret reads a secret from the terminal, unseen, or from standard input.
func askSecret(cmd *cobra.Command) (string, error) {
	in, isFile := cmd.InOrStdin().(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		return readPassword(cmd)
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Secret: ")
	text, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err == nil && len(text) == 0 {
		err = errors.New("nothing was typed")
	}
	return string(text), err
}
