package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/auth"
	"postern/internal/dpapi"
	"postern/internal/textfile"
)

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Seal secrets for relay.toml on Windows",
	}
	file := ""
	protect := &cobra.Command{
		Use:   "protect",
		Short: "Seal a password or token, and print it for relay.toml",
		Long: `Read one line from the terminal, where it is not shown, from a file (UTF-8) or from standard input, have
Windows seal it (DPAPI), and print what to write in relay.toml wherever a secret may stand: password = "dpapi:…".
Windows PowerShell 5.1 gives programs a question mark for each character that is not ASCII: have such a secret read
from a file.

It opens on this installation of Windows only: a copy of relay.toml is worth nothing elsewhere, and after Windows
was installed anew the secret has to be sealed again. Every program of this machine could open it, so that the
rights of relay.toml still matter.`,
		Example: `  postern secret protect
  postern secret protect --file key.txt`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := secretOf(cmd, file)
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
	}
	protect.Flags().StringVar(&file, "file", "", "read the secret from this `file`, which has it on its one line")
	cmd.AddCommand(protect)
	return cmd
}

// secretOf reads the secret to seal.
func secretOf(cmd *cobra.Command, file string) (string, error) {
	if file == "" {
		return askSecret(cmd)
	}
	text, err := textfile.Read(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	switch {
	case secret == "":
		return "", fmt.Errorf("%s is empty", file)
	case len(secret) > auth.MaxLength:
		return "", fmt.Errorf("%s has more than the %d octets of a secret: is it the right file?", file, auth.MaxLength)
	case strings.ContainsAny(secret, "\r\n"):
		return "", fmt.Errorf("%s has more than one line: leave the secret alone in it", file)
	case !utf8.ValidString(secret):
		return "", fmt.Errorf("%s is not UTF-8: save it as UTF-8 in the editor", file)
	}
	return secret, nil
}

// pipedSecret refuses what a shell has put in place of characters on the way, where that can be told.
func pipedSecret(cmd *cobra.Command) (string, error) {
	secret, err := readPassword(cmd)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(secret) || strings.ContainsRune(secret, utf8.RuneError) {
		return "", errors.New("the secret did not arrive as UTF-8, a shell has changed it: use --file FILE, or type it")
	}
	if strings.Contains(secret, "?") {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: the secret has a question mark. If it should have none, "+
			"PowerShell has put it there: use --file FILE, or type the secret")
	}
	return secret, nil
}

// askSecret reads a secret from the terminal, unseen, or from standard input.
func askSecret(cmd *cobra.Command) (string, error) {
	in, isFile := cmd.InOrStdin().(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		return pipedSecret(cmd)
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Secret: ")
	text, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err == nil && len(text) == 0 {
		err = errors.New("nothing was typed")
	}
	return string(text), err
}
