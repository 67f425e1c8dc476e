package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/dnscheck"
	"postern/relay/keyring"
)

// longestKeyCheck bounds a look for many keys at servers that do not answer.
const longestKeyCheck = 5 * time.Minute

func (a *app) dkimCheck() *cobra.Command {
	var flags dnsFlags
	cmd := &cobra.Command{
		Use:   "check [DOMAIN]",
		Short: "Look for the keys' records in DNS now",
		Long: `Look for the records of all keys, or of a domain's, at the resolver and at the name servers of the
domain. Keys that may sign by it do so from now on. Exit code 1: a record is missing or wrong, or DNS does not answer.`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.options(a)
			if err != nil {
				return usage(cmd, err)
			}
			if o.Resolver != nil {
				a.dns = dnscheck.KeyLookup{Resolver: o.Resolver}
			}
			return a.look(checkKeys)(cmd, args)
		},
	}
	flags.add(cmd)
	return withJSON(cmd)
}

func checkKeys(cmd *cobra.Command, ops *operate.Operations, args []string) error {
	domain := ""
	if len(args) == 1 {
		var err error
		if domain, err = operate.ParseDomain(args[0]); err != nil {
			return usage(cmd, err)
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), longestKeyCheck)
	defer cancel()
	keys, err := ops.Keys.Check(ctx, me(), domain)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("DNS has not answered for all keys within %s; try one domain: postern dkim check DOMAIN",
			longestKeyCheck)
	case err != nil:
		return err
	case len(keys) == 0:
		return fmt.Errorf("no key for this; make one: postern dkim add DOMAIN")
	}
	if err := showChecked(cmd, keys); err != nil {
		return err
	}
	for _, k := range keys {
		if k.State.Stage != keyring.Retiring && k.Found() != keyring.Seen {
			return errSilent
		}
	}
	return nil
}

func showChecked(cmd *cobra.Command, keys []operate.Key) error {
	if asJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), operate.ShownKeys(keys))
	}
	words := map[keyring.Found]string{keyring.Seen: "published", keyring.Absent: "missing",
		keyring.Differs: "another record", keyring.Unknown: "no answer"}
	var rows [][]string
	for _, k := range keys {
		rows = append(rows, []string{k.RecordName(), k.Algorithm(), words[k.Found()], string(k.State.Stage), k.Next})
	}
	return table(cmd.OutOrStdout(), []string{"RECORD", "ALGORITHM", "IN DNS", "STAGE", "NEXT STEP"}, rows)
}
