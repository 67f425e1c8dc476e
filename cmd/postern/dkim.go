package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/sign"
)

func (a *app) dkimCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dkim", Short: "Keys that sign mail, and the DNS records they need"}
	cmd.AddCommand(a.dkimAdd(), a.dkimList(), a.dkimDNS())
	return cmd
}

func (a *app) dkimAdd() *cobra.Command {
	var selector string
	var algorithms []string
	cmd := &cobra.Command{
		Use:   "add DOMAIN",
		Short: "Make keys for a domain and print the DNS records to publish",
		Long: `Make an RSA-2048 and an Ed25519 key for a domain and print the DNS records to publish. Mail is signed
with both as soon as the daemon has noticed them, within a second or so: publish the records first where that matters,
or read them again with 'postern dkim dns'. Receivers that do not know Ed25519 look at the RSA signature.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := operate.ParseDomain(args[0]); err != nil {
				return usage(cmd, err)
			}
			ops, done, err := a.operations(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			keys, err := ops.Keys.Add(cmd.Context(), me(), args[0], selector, algorithms)
			switch kind, known := operate.KindOf(err); {
			case known && kind == operate.Conflict:
				return fmt.Errorf("%w; choose another with --selector", err)
			case known:
				return usage(cmd, err)
			case err != nil:
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), operate.ShownKeys(keys))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Made %s for %s. Publish:\n\n", plural(int64(len(keys)), "key"),
				keys[0].Domain)
			if err := printRecords(cmd.OutOrStdout(), keys); err != nil {
				return err
			}
			return a.warnUnsigned(cmd)
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "",
		"`name` under _domainkey; default: r and e with year and month, such as r202611")
	cmd.Flags().StringSliceVar(&algorithms, "algorithm", []string{sign.RSA2048, sign.Ed25519}, "kinds of keys to make")
	return withJSON(cmd)
}

func printRecords(w io.Writer, keys []operate.Key) error {
	for _, k := range keys {
		line, err := k.ZoneLine()
		if err != nil {
			return err
		}
		text, err := k.Record()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "Name   %s\nType   TXT\nValue  %s\n\nAs a line of a zone file:\n%s\n\n", k.RecordName(), text,
			line)
	}
	return nil
}

func (a *app) dkimList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the keys",
		Args:  exactly(0),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			keys, err := ops.Keys.List(cmd.Context(), me())
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), operate.ShownKeys(keys))
			}
			if len(keys) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(),
					"There are no keys: mail leaves without our signature. Make some: postern dkim add DOMAIN")
				return nil
			}
			var rows [][]string
			for _, k := range keys {
				rows = append(rows, []string{k.Domain, k.Selector, k.Algorithm(), k.Origin(),
					when(k.Made, time.Now())})
			}
			return table(cmd.OutOrStdout(), []string{"DOMAIN", "SELECTOR", "ALGORITHM", "FROM", "MADE"}, rows)
		}),
	})
}

func (a *app) dkimDNS() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "dns [DOMAIN]",
		Short: "Print the DNS records to publish",
		Args:  wrongUsage(cobra.MaximumNArgs(1)),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			keys, err := ops.Keys.List(cmd.Context(), me())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				domain, err := operate.ParseDomain(args[0])
				if err != nil {
					return usage(cmd, err)
				}
				keys = slices.DeleteFunc(keys, func(k operate.Key) bool { return k.Domain != domain })
			}
			if len(keys) == 0 {
				return fmt.Errorf("no key for this; make one: postern dkim add DOMAIN")
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), operate.ShownKeys(keys))
			}
			return printRecords(cmd.OutOrStdout(), keys)
		}),
	})
}

// warnUnsigned says that keys sign nothing where every upstream has dkim = "skip" or "strip", as most profiles do.
func (a *app) warnUnsigned(cmd *cobra.Command) error {
	c, err := a.read()
	if err != nil || c.Signs() {
		return err
	}
	var reasons []string
	for _, u := range c.Upstreams {
		reasons = append(reasons, fmt.Sprintf("%s (provider %q): dkim = %q", u.Name, u.Provider, u.DKIM))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "\nNothing is signed with it: no upstream lets us sign, because the provider "+
		"signs itself or changes the message.\n  %s\n"+
		"Set up DKIM for the domain at the provider instead; where it keeps our signature, write dkim = \"sign\" in "+
		"its [[upstream]].\n",
		strings.Join(reasons, "\n  "))
	return nil
}
