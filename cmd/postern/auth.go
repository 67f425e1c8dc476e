package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/sources"
)

func (a *app) authCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "auth", Short: "Ask the sources of logins"}
	cmd.AddCommand(a.authTest())
	return cmd
}

// authTimeout bounds the sources together, as in a login.
const authTimeout = 20 * time.Second

func (a *app) authTest() *cobra.Command {
	var lookup, token bool
	cmd := &cobra.Command{
		Use:   "test LOGIN",
		Short: "Ask each source of relay.toml about a login: which decides, why it refuses, groups and addresses",
		Long: `Ask each [[auth.source]] about a login as a mail program would, with its password, which is asked for or
read from standard input. Shows which source decides and why it refuses, which a client is never told, and the groups
and addresses that a directory gives. The lockout of the daemon is not asked, and nothing counts there; a directory may
count a wrong password itself.`,
		Example: `  postern auth test anna@example.com
  printf %s "$PASSWORD" | postern auth test anna@example.com
  postern auth test anna@example.com --lookup
  postern auth test app@example.com --token < token`,
		SuggestFor: []string{"try", "check", "login"},
		Args:       exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			login, ok := auth.NormalizeLogin(args[0])
			if !ok {
				return usage(cmd, fmt.Errorf("%q is no login that anybody could have", args[0]))
			}
			c, err := a.load()
			if err != nil {
				return err
			}
			password, err := askProof(cmd, login, lookup, token)
			if err != nil {
				return usage(cmd, err)
			}
			s, err := toLook(cmd, c)
			if err != nil {
				return err
			}
			defer s.Close()
			t, err := tryLogin(cmd.Context(), c, s, login, password, lookup, token)
			if err != nil {
				return err
			}
			offered := password
			if lookup || token {
				offered = ""
			}
			apps, err := lookAtApps(cmd.Context(), s, login, offered, time.Now())
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				err = writeJSON(cmd.OutOrStdout(), struct {
					sources.Trial
					appTrial
				}{t, apps})
			} else if !apps.Good { // else no source is asked
				err = writeTrial(cmd.OutOrStdout(), t)
			}
			if err == nil && !asJSON(cmd) {
				apps.write(cmd.OutOrStdout())
			}
			if err == nil && !t.OK && !apps.Good {
				err = errSilent
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&token, "token", false, "read an access token from standard input instead of a password")
	cmd.Flags().BoolVar(&lookup, "lookup", false, "without a password: only say who the login is")
	return withJSON(cmd)
}

// askProof asks for what a login proves itself with: a password, an access token, or nothing to look it up.
func askProof(cmd *cobra.Command, login string, lookup, token bool) (string, error) {
	switch {
	case lookup && token:
		return "", errors.New("--lookup and --token exclude each other")
	case lookup:
		return "", nil
	case token:
		return readToken(cmd)
	}
	return askPassword(cmd, login)
}

// askPassword asks a person without showing what is typed, or reads standard input.
func askPassword(cmd *cobra.Command, login string) (string, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return readPassword(cmd)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Password of %s: ", login)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	switch {
	case err != nil:
		return "", fmt.Errorf("read the password: %w", err)
	case len(b) == 0:
		return "", errors.New("the password is empty; to ask without one: --lookup")
	}
	return string(b), nil
}

// readToken reads an access token from standard input.
func readToken(cmd *cobra.Command) (string, error) {
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), auth.MaxToken+2))
	token := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	case token == "" || len(token) > auth.MaxToken:
		return "", fmt.Errorf("an access token of at most %d octets is needed on standard input", auth.MaxToken)
	}
	return token, nil
}

// tryLogin asks the sources of a configuration, the store among them beside the daemon.
func tryLogin(ctx context.Context, c *config.Config, s store, login, proof string, lookup, token bool) (
	sources.Trial, error) {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	pepper, err := s.Secret(ctx, auth.PepperName, auth.PepperSize)
	if err != nil {
		return sources.Trial{}, err
	}
	list, err := sources.New(c, s, pepper, nil)
	if err != nil {
		return sources.Trial{}, err
	}
	defer sources.Close(list, nil)
	types := make([]string, len(list))
	for i := range list {
		types[i] = c.Auth.Sources[i].Type
	}
	if token {
		return sources.TryToken(ctx, list, types, login, proof), nil
	}
	return sources.Try(ctx, list, types, login, proof, lookup), nil
}

func writeTrial(w io.Writer, t sources.Trial) error {
	var rows [][]string
	for _, a := range t.Answers {
		took := ""
		if a.Answer != sources.NotAsked {
			took = a.Took.Round(time.Millisecond).String()
		}
		rows = append(rows, []string{a.Source, a.Type, a.Answer, orDash(took), orDash(a.Reason)})
	}
	if err := table(w, []string{"SOURCE", "TYPE", "ANSWER", "TOOK", "REASON"}, rows); err != nil {
		return err
	}
	if !t.OK {
		_, err := fmt.Fprintf(w, "\n%s\n", refusedInWords(t))
		return err
	}
	fmt.Fprintf(w, "\nLogin     %s\n", t.As)
	fmt.Fprintf(w, "Groups    %s\n", orDash(strings.Join(t.Groups, ", ")))
	senders := strings.Join(t.Senders, ", ")
	if senders == "" {
		senders = "as [[policy]] says"
	}
	fmt.Fprintf(w, "Senders   %s\n", senders)
	networks := strings.Join(t.Networks, ", ")
	if networks == "" {
		networks = "any"
	}
	_, err := fmt.Fprintf(w, "Networks  %s\n", networks)
	return err
}

func refusedInWords(t sources.Trial) string {
	for _, a := range t.Answers {
		switch a.Answer {
		case sources.NoToken:
			return "A client hears 535: the access token is not accepted."
		case sources.Wrong, sources.Locked:
			return "A client hears 535: user name or password not accepted."
		case sources.Down, sources.Undecided:
			return "A client hears 454: try again later. To see more: postern doctor --only sources"
		}
	}
	return "No source knows this login. A client hears 535: user name or password not accepted."
}
