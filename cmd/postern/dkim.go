package main

import (
	"context"
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
	cmd.AddCommand(a.dkimAdd(), a.dkimList(), a.dkimDNS(), a.dkimCheck(), a.dkimRotate(), a.dkimRetire(),
		a.dkimRemove())
	return cmd
}

func (a *app) dkimAdd() *cobra.Command {
	var selector string
	var algorithms []string
	var now bool
	cmd := &cobra.Command{
		Use:   "add DOMAIN",
		Short: "Make keys for a domain and print the DNS records to publish",
		Long: `Make an RSA-2048 and an Ed25519 key for a domain and print the DNS records to publish. The daemon looks
for them in DNS, every five minutes in the first hour and then hourly, and signs with a key once the resolver and all
name servers of the domain have its record; 'postern dkim check' looks at once. Receivers that do not know Ed25519 look
at the RSA signature. With --now the keys sign within a second or so: until the records are published, receivers find
signatures that they cannot verify, which is no better than none.`,
		Args: exactly(1),
		RunE: a.makeKeys(func(ctx context.Context, of operate.Keys, domain string) ([]operate.Key, error) {
			add := of.Add
			if now {
				add = of.AddNow
			}
			keys, err := add(ctx, me(), domain, selector, algorithms)
			if kind, known := operate.KindOf(err); known && kind == operate.Conflict {
				err = fmt.Errorf("%w; choose another with --selector", err)
			}
			return keys, err
		}),
	}
	cmd.Flags().StringVar(&selector, "selector", "",
		"`name` under _domainkey; default: r and e with year and month, such as r202611")
	cmd.Flags().StringSliceVar(&algorithms, "algorithm", []string{sign.RSA2048, sign.Ed25519}, "kinds of keys to make")
	cmd.Flags().BoolVar(&now, "now", false, "sign at once, before the records are seen in DNS")
	return withJSON(cmd)
}

// makeKeys makes a command of what makes keys of a domain. It prints their records.
func (a *app) makeKeys(makes func(context.Context, operate.Keys, string) ([]operate.Key, error)) runE {
	return a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
		keys, err := makes(cmd.Context(), ops.Keys, args[0])
		if err != nil {
			return keyError(cmd, err)
		}
		if asJSON(cmd) {
			return writeJSON(cmd.OutOrStdout(), operate.ShownKeys(keys))
		}
		return a.showMade(cmd, keys)
	})
}

// showMade prints new keys for people.
func (a *app) showMade(cmd *cobra.Command, keys []operate.Key) error {
	fmt.Fprintf(cmd.OutOrStdout(), "Made %s for %s. Publish:\n\n", plural(int64(len(keys)), "key"), keys[0].Domain)
	if err := printRecords(cmd.OutOrStdout(), keys); err != nil {
		return err
	}
	if keys[0].State.Stage.Waits() {
		fmt.Fprintf(cmd.OutOrStdout(), "They do not sign before these records are seen in DNS. See how it stands: "+
			"postern dkim check %s\n", keys[0].Domain)
	}
	return a.warnUnsigned(cmd)
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
		Short: "List the keys, their stages and what to do next",
		Long: `List the keys. Stages: new (its record is to be published), published (seen in DNS, it will sign),
signing, retiring (it signs no more; its record must stay for eight days, for mail on its way).`,
		Args: exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
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
			now := time.Now()
			var rows [][]string
			for _, k := range keys {
				rows = append(rows, []string{k.Domain, k.Selector, k.Algorithm(), k.Origin(), string(k.State.Stage),
					when(k.State.Since, now), k.Next})
			}
			return table(cmd.OutOrStdout(), []string{"DOMAIN", "SELECTOR", "ALGORITHM", "FROM", "STAGE", "SINCE",
				"NEXT STEP"}, rows)
		}),
	})
}

func (a *app) dkimDNS() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "dns [DOMAIN]",
		Short: "Print the DNS records to publish",
		Args:  wrongUsage(cobra.MaximumNArgs(1)),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
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
			keys = slices.DeleteFunc(keys, func(k operate.Key) bool { return k.Over })
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
