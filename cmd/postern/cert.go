package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/certs/acme"
	"postern/operate"
)

func (a *app) certCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "The certificates of the listeners"}
	cmd.AddCommand(a.certList(), a.certShow(), a.certRenew(), a.certDNS(), a.certExport())
	return cmd
}

func (a *app) certList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the certificates of the listeners, the days they have left, and what is in the way of new ones",
		Args:  exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			all, err := ops.Certificates.List(cmd.Context(), me())
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), append([]operate.Certificate{}, all...)) // never null
			}
			if len(all) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "There is none yet: postern serve makes a self-signed one when it "+
					"starts. For one that clients\ntrust write [tls.acme] or tls.cert_file, see docs/certificates.md.")
				return nil
			}
			return certTable(cmd.OutOrStdout(), all, time.Now())
		}),
	})
}

func certTable(w io.Writer, all []operate.Certificate, now time.Time) error {
	var rows [][]string
	for _, c := range all {
		left, name := "none yet", c.Name
		if !c.Missing() {
			left = daysLeft(c.DaysLeft)
		}
		if name == "" {
			name = strings.Join(c.Names, ", ")
		}
		from := string(c.Source)
		if c.ForDevices {
			from += ", old devices"
		}
		rows = append(rows, []string{name, c.Key, from, left, orDash(certTrouble(c, now))})
	}
	return table(w, []string{"NAME", "KEY", "FROM", "LEFT", "TROUBLE"}, rows)
}

func certTrouble(c operate.Certificate, now time.Time) string {
	all := slices.Clone(c.Warnings)
	if c.Failures > 0 {
		all = append(all, fmt.Sprintf("%s (%s in a row, the next try is at %s)", c.Error,
			plural(int64(c.Failures), "failure"), when(c.NextTry, now)))
	}
	return strings.Join(all, "; ")
}

func (a *app) certShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "show NAME",
		Short: "Show all that is known of the certificates for a name",
		Args:  exactly(1),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			all, err := ops.Certificates.List(cmd.Context(), me())
			if err != nil {
				return err
			}
			name := strings.ToLower(strings.TrimSuffix(args[0], "."))
			all = slices.DeleteFunc(all, func(c operate.Certificate) bool {
				return c.Name != name && !slices.Contains(c.Names, name)
			})
			if len(all) == 0 {
				return fmt.Errorf("there is no certificate for %q; those that there are: postern cert list", name)
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), all)
			}
			for i := range all {
				if err := showCert(cmd.OutOrStdout(), &all[i], time.Now()); err != nil {
					return err
				}
			}
			return nil
		}),
	})
}

func showCert(w io.Writer, c *operate.Certificate, now time.Time) error {
	rows := [][]string{{"From", string(c.Source)}, {"Key", c.Key}}
	add := func(what, value string) {
		if value != "" {
			rows = append(rows, []string{what, value})
		}
	}
	if c.Missing() {
		add("Certificate", "none yet: the listeners present a self-signed one")
	} else {
		add("Stands in", c.File)
		add("Covers", strings.Join(c.Names, ", "))
		add("Issuer", c.Issuer)
		for _, subject := range c.Chain {
			add("Comes with", subject)
		}
		add("Valid", fmt.Sprintf("%s to %s, %s left", when(c.Begins, now), when(c.Ends, now), daysLeft(c.DaysLeft)))
		add("SHA-256", c.Fingerprint)
	}
	if !c.Attempted.IsZero() {
		add("Last attempt", when(c.Attempted, now))
	}
	add("Trouble", certTrouble(*c, now))
	return table(w, []string{"", strings.Join(append([]string{c.Name}, c.Names...)[:1], "")}, rows)
}

func (a *app) certRenew() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "renew [NAME]",
		Short: "Get new certificates by ACME now, for all names or one",
		Long: `Have the daemon get new certificates now, whether it is time or not, and show how it went. They are
renewed by themselves: this is for who has mended what was in the way, or wants another key. Public CAs give a name
five certificates a week.`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			name := strings.Join(args, "")
			names, asked, err := ops.Certificates.Renew(cmd.Context(), me(), name)
			if err != nil {
				return err
			}
			if !ops.Certificates.Running() {
				return fmt.Errorf("postern does not run: it will ask the CA for %s when it is started",
					strings.Join(names, ", "))
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			fmt.Fprintf(cmd.ErrOrStderr(), "Asking the CA for %s.\n", strings.Join(names, ", "))
			all, err := awaitRenewal(ctx, ops.Certificates, names, asked)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				err = writeJSON(cmd.OutOrStdout(), all)
			} else {
				err = certTable(cmd.OutOrStdout(), all, time.Now())
			}
			if err == nil && slices.ContainsFunc(all, func(c operate.Certificate) bool { return c.Failures > 0 }) {
				return errSilent
			}
			return err
		}),
	}
	cmd.Flags().DurationVar(&wait, "wait", 5*time.Minute, "how long to wait for the outcome")
	return withJSON(cmd)
}

// awaitRenewal waits until every name was tried after it was asked for.
func awaitRenewal(ctx context.Context, of operate.Certificates, names []string,
	asked time.Time) ([]operate.Certificate, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := of.List(ctx, me())
		if err != nil && ctx.Err() == nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(c operate.Certificate) bool { return !slices.Contains(names, c.Name) })
		if len(all) > 0 && !slices.ContainsFunc(all, func(c operate.Certificate) bool {
			return c.Attempted.Before(asked)
		}) {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("the CA has not answered yet; how it stands: postern cert list")
		case <-tick.C:
		}
	}
}

func (a *app) certDNS() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "dns",
		Short: "Print the DNS records to publish once, for dns-persist-01 and acme-dns",
		Long: `Print the DNS records that a person publishes once: for dns-persist-01 a TXT record that names the CA and
our account there; for acme-dns a CNAME. An account is registered where there is none yet.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withSecrets(cmd, toWrite, func(ops *operate.Operations) error {
				records, err := ops.Certificates.Records(cmd.Context(), me())
				if err != nil {
					return err
				}
				if asJSON(cmd) {
					return writeJSON(cmd.OutOrStdout(), records)
				}
				printCertRecords(cmd.OutOrStdout(), records)
				return nil
			})
		},
	})
}

func printCertRecords(w io.Writer, records []acme.Record) {
	for _, r := range records {
		value := r.Value
		if r.Type == "TXT" {
			value = fmt.Sprintf("%q", r.Value)
		}
		fmt.Fprintf(w, "Name   %s\nType   %s\nValue  %s\n\nAs a line of a zone file:\n%s. 3600 IN %s %s\n\n", r.Name,
			r.Type, r.Value, r.Name, r.Type, value)
	}
	fmt.Fprintln(w, "Once they can be seen in DNS: postern cert renew")
}
