package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/relay/outbound"
	"postern/relay/sign"
	relaystore "postern/relay/store"
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
			domain, err := mail.ParseDomain(args[0])
			if err != nil {
				return usage(cmd, fmt.Errorf("%q is no domain: %w", args[0], err))
			}
			s, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			keys, err := makeKeys(domain, selector, algorithms, time.Now())
			if err != nil {
				return usage(cmd, err)
			}
			rows := make([]relaystore.Key, len(keys))
			for i, k := range keys {
				rows[i] = k.row
			}
			err = s.AddKeys(cmd.Context(), rows...)
			if _, exists := errors.AsType[*relaystore.KeyExistsError](err); exists {
				return fmt.Errorf("%w; choose another with --selector", err)
			}
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), keyViews(keys))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Made %s for %s. Publish:\n\n", plural(int64(len(keys)), "key"), domain)
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

// storedKey is a key with its row in the store, which is empty for a key of relay.toml.
type storedKey struct {
	sign.Key
	row relaystore.Key
}

// allKeys returns every key that would sign.
func (a *app) allKeys(cmd *cobra.Command) ([]storedKey, error) {
	c, err := a.read()
	if err != nil {
		return nil, err
	}
	s, err := openStoreOf(cmd.Context(), c)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	keys, err := outbound.Keys(cmd.Context(), c.DKIM, s)
	if err != nil {
		return nil, err
	}
	rows, err := s.Keys(cmd.Context())
	if err != nil {
		return nil, err
	}
	all := make([]storedKey, len(keys))
	for i, k := range keys {
		all[i].Key = k
		of := func(row relaystore.Key) bool { return row.Domain == k.Domain && row.Selector == k.Selector }
		if j := slices.IndexFunc(rows, of); i >= len(c.DKIM) && j >= 0 {
			all[i].row = rows[j]
		}
	}
	return all, nil
}

func makeKeys(domain, selector string, algorithms []string, now time.Time) ([]storedKey, error) {
	var keys []storedKey
	for _, alg := range algorithms {
		signer, pem, err := sign.Generate(alg)
		if err != nil {
			return nil, err
		}
		name := selector
		switch {
		case name == "":
			name = alg[:1] + now.Format("200601")
		case len(algorithms) > 1:
			name += "-" + alg[:1]
		}
		k := sign.Key{Domain: domain, Selector: name, Signer: signer}
		if _, err := sign.CheckKey(k); err != nil {
			return nil, err
		}
		keys = append(keys, storedKey{k, relaystore.Key{Domain: domain, Selector: name, Algorithm: alg,
			PEM: string(pem), Created: now}})
	}
	return keys, nil
}

func printRecords(w io.Writer, keys []storedKey) error {
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := a.allKeys(cmd)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), keyViews(keys))
			}
			if len(keys) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(),
					"There are no keys: mail leaves without our signature. Make some: postern dkim add DOMAIN")
				return nil
			}
			var rows [][]string
			for _, k := range keys {
				rows = append(rows, []string{k.Domain, k.Selector, k.Algorithm(), origin(k),
					when(k.row.Created, time.Now())})
			}
			return table(cmd.OutOrStdout(), []string{"DOMAIN", "SELECTOR", "ALGORITHM", "FROM", "MADE"}, rows)
		},
	})
}

func origin(k storedKey) string {
	if len(k.row.PEM) == 0 {
		return "relay.toml"
	}
	return "store"
}

// keyView is a key as --json prints it: the public half only.
type keyView struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Origin    string `json:"origin"`
	Name      string `json:"record_name"`
	Record    string `json:"record"`
	ZoneLine  string `json:"zone_line"`
}

func keyViews(keys []storedKey) []keyView {
	views := make([]keyView, 0, len(keys))
	for _, k := range keys {
		record, _ := k.Record() // CheckKey accepted it
		line, _ := k.ZoneLine()
		views = append(views, keyView{k.Domain, k.Selector, k.Algorithm(), origin(k), k.RecordName(), record, line})
	}
	return views
}

func (a *app) dkimDNS() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "dns [DOMAIN]",
		Short: "Print the DNS records to publish",
		Args:  wrongUsage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := a.allKeys(cmd)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				domain, err := mail.ParseDomain(args[0])
				if err != nil {
					return usage(cmd, fmt.Errorf("%q is no domain: %w", args[0], err))
				}
				keys = slices.DeleteFunc(keys, func(k storedKey) bool { return k.Domain != domain })
			}
			if len(keys) == 0 {
				return fmt.Errorf("no key for this; make one: postern dkim add DOMAIN")
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), keyViews(keys))
			}
			return printRecords(cmd.OutOrStdout(), keys)
		},
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
