package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/upstream/oauth"
)

func (a *app) upstreamLogin() *cobra.Command {
	var flow string
	cmd := &cobra.Command{
		Use:   "login NAME",
		Short: "Let a person consent that postern sends from a mailbox (OAuth 2.0)",
		Long: `Ask the provider's login page for a person's consent, and keep what it grants in the store, sealed with
the key in data_dir. The daemon uses it from then on and keeps it alive.

With flow device-code the page may be opened on any device. With authorization-code it is best opened on this machine;
elsewhere the browser ends at an address that does not load, and that address is pasted here.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.login(cmd, args[0], oauth.Flow(flow))
		},
	}
	cmd.Flags().StringVar(&flow, "flow", "", "device-code or authorization-code, instead of the configured one")
	return cmd
}

func (a *app) login(cmd *cobra.Command, name string, flow oauth.Flow) error {
	if flow != "" && flow != oauth.DeviceCode && flow != oauth.AuthorizationCode {
		return usage(cmd, fmt.Errorf("--flow is %q, not device-code or authorization-code", flow))
	}
	c, block, err := a.upstreamNamed(name)
	if err != nil {
		return err
	}
	if block.OAuth == nil {
		return fmt.Errorf("upstream %s logs in with a password: there is nothing to consent to without "+
			"[upstream.oauth]", name)
	}
	ctx := cmd.Context()
	s, err := openStoreOf(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	source, err := outbound.NewTokens(c, block, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer source.Close()
	consent, err := source.Consent(ctx, flow)
	if err != nil {
		return explained(err)
	}
	defer consent.Close()
	out := cmd.OutOrStdout()
	showPrompt(out, consent.Prompt(), block.Username)
	if consent.Prompt().Paste {
		// ends with the input or the command; a read of a terminal cannot be called off
		go paste(cmd.InOrStdin(), out, consent)
	}
	if err := consent.Wait(ctx); err != nil {
		return explained(err)
	}
	return a.logged(ctx, out, source, block)
}

// logged proves that what was granted gives tokens.
func (a *app) logged(ctx context.Context, out io.Writer, source *oauth.Source, block config.Upstream) error {
	fmt.Fprintf(out, "The consent for upstream %s is stored.\n", block.Name)
	token, err := source.Token(ctx, block.Username)
	if err != nil {
		return fmt.Errorf("it gives no access token, though: %w", explained(err))
	}
	fmt.Fprintf(out, "An access token came of it, good for %s; the daemon renews it by itself.\n",
		time.Until(token.Expiry).Round(time.Minute))
	for _, e := range source.Expiries(time.Now()) {
		fmt.Fprintf(out, "The %s ends on %s.\n", e.What, e.At.Format(time.DateOnly))
	}
	fmt.Fprintf(out, "Try it:  postern upstream test %s\n", block.Name)
	return nil
}

func showPrompt(out io.Writer, p oauth.Prompt, username string) {
	if p.Flow == oauth.DeviceCode {
		fmt.Fprintf(out, "Open this page on any device and log in as %s:\n\n  %s\n\nIt asks for this code:\n\n  %s\n\n",
			username, p.URL, p.Code)
		if p.Complete != "" {
			fmt.Fprintf(out, "This address has the code in it:\n\n  %s\n\n", p.Complete)
		}
	} else {
		fmt.Fprintf(out, "Open this page in a browser and log in as %s:\n\n  %s\n\n", username, p.URL)
		if p.Listening != "" {
			fmt.Fprintf(out, "On this machine the browser comes back to %s by itself.\n", p.Listening)
		}
		fmt.Fprint(out, "On another one it ends at a page that does not load: copy its address from the browser and "+
			"paste it here.\n\n")
	}
	if !p.Expires.IsZero() {
		fmt.Fprintf(out, "Waiting until %s. Ctrl-C gives up; nothing changes then.\n",
			p.Expires.Local().Format("15:04"))
	}
}

// maxPaste bounds a pasted line, in octets: an address with a code is far shorter.
const maxPaste = 64 << 10

// paste takes lines until one fits or the input ends.
func paste(in io.Reader, out io.Writer, consent *oauth.Consent) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4096), maxPaste)
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		err := consent.Paste(lines.Text())
		if err == nil {
			return
		}
		if known, ok := errors.AsType[*oauth.Error](err); ok && known.Class == mail.AccountFault {
			return // the provider's answer: Wait tells it
		}
		fmt.Fprintf(out, "%v\n", err)
	}
}

// explained says what an authorization server said, and what to do.
func explained(err error) error {
	known, ok := errors.AsType[*oauth.Error](err)
	if !ok {
		return err
	}
	text := known.Cause
	if known.Code != "" {
		text += " (" + known.Code + ")"
	}
	if known.Fix != "" {
		text += "\n" + known.Fix
	}
	if known.Detail != "" {
		text += "\nThe server said: " + known.Detail
	}
	return errors.New(text)
}
