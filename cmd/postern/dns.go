package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/dnscheck"
)

func (a *app) dnsCommand() *cobra.Command {
	var flags dnsFlags
	cmd := &cobra.Command{
		Use:   "dns [DOMAIN]",
		Short: "Whether a domain's mail passes at receivers, and the DNS records to publish; without DOMAIN, list them",
		Long: `Look at what DNS says of a domain that mail is sent for, as receivers do: SPF, DKIM, DMARC, MX, and the
name of this server's address where an upstream judges mail by it. Prints whether mail passes, for each upstream, what
is wrong and what to do, and the records to publish. Exit code 1: mail fails at an upstream.

It asks the system's resolver and the name servers of the domain, and says where they differ. Those of the domain count:
receivers see what they say.

Without DOMAIN it asks nobody, and lists the domains that relay.toml, the accounts and the DKIM keys name.`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			o, err := flags.options(a)
			if err != nil {
				return usage(cmd, err)
			}
			if len(args) == 0 {
				return listDomains(cmd, ops)
			}
			return showDomain(cmd, ops, args[0], o)
		}),
	}
	flags.add(cmd)
	flags.addAddress(cmd)
	return withJSON(cmd)
}

func listDomains(cmd *cobra.Command, ops *operate.Operations) error {
	list, err := ops.Domains.List(cmd.Context(), me())
	switch {
	case err != nil:
		return err
	case asJSON(cmd):
		return writeJSON(cmd.OutOrStdout(), list)
	case len(list) == 0:
		fmt.Fprintln(cmd.OutOrStdout(), "No policy, account or key names a domain that mail is sent from.")
	}
	for _, d := range list {
		fmt.Fprintln(cmd.OutOrStdout(), d.Domain)
	}
	return nil
}

func showDomain(cmd *cobra.Command, ops *operate.Operations, domain string, o operate.LookOptions) error {
	r, ours, err := ops.Domains.Look(cmd.Context(), me(), domain, o)
	if _, known := operate.KindOf(err); known {
		return usage(cmd, err)
	}
	if err != nil {
		return err
	}
	if asJSON(cmd) {
		err = writeJSON(cmd.OutOrStdout(), r)
	} else {
		err = writeReport(cmd.OutOrStdout(), &r, ours)
	}
	if err == nil && r.Fails() {
		err = errSilent
	}
	return err
}

func writeReport(w io.Writer, r *dnscheck.Report, ours bool) error {
	p := &page{w: w, now: r.Time}
	if !ours {
		p.line("By relay.toml and the accounts nobody may send as %s; receivers would see what follows.",
			r.Domain)
		p.line("")
	}
	var rows [][]string
	for _, o := range r.Outcomes {
		rows = append(rows, []string{o.Upstream, string(o.Verdict), o.Why})
	}
	if len(rows) > 0 && p.err == nil {
		p.err = table(w, []string{"UPSTREAM", "MAIL OF " + strings.ToUpper(r.Domain), "BECAUSE"}, rows)
	}
	p.findings(r.Findings)
	for i := range r.Records {
		p.record(&r.Records[i], i == 0)
	}
	return p.err
}

// record prints a record for the form of a DNS provider, and as a line of a zone file.
func (p *page) record(r *dnscheck.Record, first bool) {
	p.line("")
	if first {
		p.line("RECORDS TO PUBLISH")
		p.line("")
	}
	p.line("Name      %s", r.Name)
	p.line("Type      %s", r.Type)
	p.line("Value     %s", r.Value)
	for _, old := range r.Replaces {
		p.line("Replaces  %s", old)
	}
	if r.Note != "" {
		p.line("Note      %s", r.Note)
	}
	p.line("Zone      %s", r.ZoneLine)
}
