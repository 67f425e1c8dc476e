package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/clientsetup"
	"postern/relay/config"
)

func (a *app) clientCommand() *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use:   "client LOGIN",
		Short: "Everything that it takes to set up a mail program for a login, and the DNS records to publish",
		Long: `Print what a person needs to set up a mail program: the values to type, what to do in each kind of
program, and the DNS records by which programs find the settings themselves. Mail programs are told them where
relay.toml has [autoconfig]. Passwords are not shown: postern user password LOGIN makes a new one.`,
		Example: `  postern client anna@example.com
  postern client anna@example.com --mobileconfig anna.mobileconfig`,
		Args: exactly(1),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			if profile != "" {
				return writeProfile(cmd, ops, args[0], profile)
			}
			card, err := ops.Clients.Card(cmd.Context(), me(), args[0])
			switch {
			case err != nil:
				return err
			case asJSON(cmd):
				return writeJSON(cmd.OutOrStdout(), card)
			}
			return writeCard(cmd.OutOrStdout(), &card)
		}),
	}
	cmd.Flags().StringVar(&profile, "mobileconfig", "",
		"write the profile for Apple's devices into `file` instead, - for standard output")
	return withJSON(cmd)
}

// writeProfile writes Apple's profile. It has no password in it, so that everybody may read the file.
func writeProfile(cmd *cobra.Command, ops *operate.Operations, login, file string) error {
	p, err := ops.Clients.AppleProfile(cmd.Context(), me(), login)
	if err != nil {
		return err
	}
	if !p.Signed {
		fmt.Fprintf(cmd.ErrOrStderr(), "The profile is not signed: %s.\n", p.Why)
	}
	if file == "-" {
		_, err = cmd.OutOrStdout().Write(p.Document)
		return err
	}
	return os.WriteFile(file, p.Document, 0o644)
}

func writeCard(w io.Writer, c *clientsetup.Card) error {
	p := &page{w: w, now: time.Now()}
	p.line("MAIL PROGRAMS FOR %s", c.Login)
	for _, note := range c.Notes {
		p.line("Note: %s.", note)
	}
	p.servers(c)
	for _, f := range c.Families {
		p.line("")
		auto := ""
		if f.Automatic {
			auto = " - by itself, with the DNS records below"
		}
		p.line("%s%s", strings.ToUpper(f.Name), auto)
		for _, step := range f.Steps {
			p.line("  %s", step)
		}
	}
	for i, r := range c.Records {
		p.clientRecord(r, i == 0)
	}
	return p.err
}

// servers prints the values to type.
func (p *page) servers(c *clientsetup.Card) {
	p.line("")
	p.line("OUTGOING SERVER (SMTP)")
	for i, s := range c.Outgoing {
		p.server(s, i > 0)
	}
	p.line("  Password        that of this login; postern user password %s makes a new one", c.Login)
	p.line("  Authentication  normal password, not \"encrypted password\" or SPA")
	in := c.Incoming
	if in == nil {
		return
	}
	p.line("")
	p.line("INCOMING SERVER (%s)", strings.ToUpper(in.Protocol))
	p.server(*in, false)
	if in.OAuth {
		p.line("  Authentication  OAuth2")
	} else {
		p.line("  Password        that of the mailbox")
	}
}

// server prints a server, or another way to the same.
func (p *page) server(s clientsetup.Server, other bool) {
	encryption := "SSL/TLS"
	if s.TLS == config.StartTLS {
		encryption = "STARTTLS"
	}
	if other {
		p.line("  or port         %d with %s", s.Port, encryption)
		return
	}
	p.line("  Server          %s", s.Host)
	p.line("  User name       %s", s.Username)
	p.line("  Port            %d", s.Port)
	p.line("  Security        %s", encryption)
}

func (p *page) clientRecord(r clientsetup.Record, first bool) {
	if first {
		p.line("")
		p.line("DNS RECORDS, BY WHICH MAIL PROGRAMS FIND THESE SETTINGS")
	}
	p.line("")
	p.line("  Name   %s", r.Name)
	p.line("  Type   %s", r.Type)
	p.line("  Value  %s", r.Value)
	p.line("  For    %s", r.For)
	if r.Note != "" {
		p.line("  Note   %s", r.Note)
	}
}
