package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/mail"
)

// listEdit is what the flags of one list of an account ask for: another list, more, less, or none.
type listEdit struct {
	name              string // of the list, in the singular: its flags
	set, add, removed []string
	clear             bool
}

func (e *listEdit) register(cmd *cobra.Command, placeholder, what string) {
	flags := cmd.Flags()
	flags.StringArrayVar(&e.set, e.name, nil, what+", in place of all it has; may be repeated")
	flags.StringArrayVar(&e.add, "add-"+e.name, nil, what+", beside those it has")
	flags.StringArrayVar(&e.removed, "remove-"+e.name, nil, fmt.Sprintf("`%s` to take out", placeholder))
	flags.BoolVar(&e.clear, "no-"+e.name+"s", false, "no "+e.name+"s of its own any more")
}

// check refuses flags that contradict each other.
func (e *listEdit) check() error {
	switch {
	case e.clear && len(e.set)+len(e.add)+len(e.removed) > 0:
		return fmt.Errorf("--no-%ss stands alone, without other flags for %ss", e.name, e.name)
	case len(e.set) > 0 && len(e.add)+len(e.removed) > 0:
		return fmt.Errorf("--%s gives the whole list: leave --add-%s and --remove-%s out", e.name, e.name, e.name)
	}
	if slices.Contains(slices.Concat(e.set, e.add, e.removed), "") {
		return fmt.Errorf("a %s is empty; to have none: --no-%ss", e.name, e.name)
	}
	return nil
}

// edited returns a list as the flags want it. parse makes values of the flags.
func edited[T comparable](e *listEdit, have []T, parse func([]string) ([]T, error)) ([]T, error) {
	set, err1 := parse(e.set)
	add, err2 := parse(e.add)
	removed, err3 := parse(e.removed)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("%s %w", e.name, err)
	}
	switch {
	case e.clear:
		return nil, nil
	case len(set) > 0:
		return set, nil
	}
	for _, v := range removed {
		if !slices.Contains(have, v) {
			return nil, fmt.Errorf("it does not have the %s %v; it has %s", e.name, v, listText(have))
		}
	}
	left := slices.DeleteFunc(slices.Clone(have), func(v T) bool { return slices.Contains(removed, v) })
	return addOnce(left, add...), nil
}

// listText names what is in a list of an account.
func listText[T any](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ", ")
}

// accountEdit is everything that `user set` and `device set` change.
type accountEdit struct {
	senders, networks, groups listEdit
	note                      string
	noted                     bool // --note was given, maybe empty
}

func (e *accountEdit) register(cmd *cobra.Command) {
	e.senders.name, e.networks.name, e.groups.name = "sender", "network", "group"
	e.senders.register(cmd, "pattern", "`pattern` (address, *@domain) that it may send as")
	e.networks.register(cmd, "CIDR", "network (`CIDR`) that it may log in from")
	e.groups.register(cmd, "group", "`group` for [[policy]] and [[route]]")
	cmd.Flags().StringVar(&e.note, "note", "", `a word for those who list the accounts; --note "" removes it`)
}

// check refuses wrong flags before anything is opened.
func (e *accountEdit) check(cmd *cobra.Command) error {
	e.noted = cmd.Flags().Changed("note")
	for _, l := range []*listEdit{&e.senders, &e.networks, &e.groups} {
		if err := l.check(); err != nil {
			return usage(cmd, err)
		}
	}
	// What cannot be parsed is wrong usage; what does not fit the account is not.
	_, err1 := checkedSenders(slices.Concat(e.senders.set, e.senders.add))
	_, err2 := checkedNetworks(slices.Concat(e.networks.set, e.networks.add, e.networks.removed))
	_, err3 := checkedGroups(slices.Concat(e.groups.set, e.groups.add))
	if err := errors.Join(err1, err2, err3); err != nil {
		return usage(cmd, err)
	}
	asked := e.noted
	for _, name := range []string{"sender", "network", "group"} {
		for _, flag := range []string{name, "add-" + name, "remove-" + name, "no-" + name + "s"} {
			asked = asked || cmd.Flags().Changed(flag)
		}
	}
	if !asked {
		return usage(cmd, errors.New("nothing to change: give --sender, --network, --group or --note"))
	}
	return nil
}

// apply changes an account and returns what is new, in words.
func (e *accountEdit) apply(u *auth.User, now time.Time) (changes []string, err error) {
	asIs := func(list []string) ([]string, error) { return addOnce(nil, list...), nil } // checked before
	if u.Senders, err = change(&e.senders, u.Senders, asIs, &changes); err != nil {
		return nil, err
	}
	if u.Networks, err = change(&e.networks, u.Networks, checkedNetworks, &changes); err != nil {
		return nil, err
	}
	if u.Groups, err = change(&e.groups, u.Groups, asIs, &changes); err != nil {
		return nil, err
	}
	if note := mail.Printable(e.note); e.noted && note != u.Note {
		u.Note = note
		changes = append(changes, "note: "+orDash(note))
	}
	if len(changes) > 0 {
		u.Edited = now
	}
	return changes, nil
}

func change[T comparable](e *listEdit, have []T, parse func([]string) ([]T, error), changes *[]string) ([]T, error) {
	list, err := edited(e, have, parse)
	if err == nil && !slices.Equal(list, have) {
		*changes = append(*changes, e.name+"s: "+listText(list))
	}
	return list, err
}

func (a *app) accountSet(of accounts) *cobra.Command {
	var edit accountEdit
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set " + of.argument,
		Short: "Change senders, networks, groups and note of " + of.one + "; its password stays",
		Long: fmt.Sprintf(`Change senders, networks, groups and note of %s. Its password stays, and open sessions go
on with what is new. What no flag names stays as it is. To have none of a list: --no-senders, --no-networks,
--no-groups, --note "".`, of.one),
		SuggestFor: []string{"edit", "change", "modify", "update"},
		Example: fmt.Sprintf(`  postern %[1]s set %[2]s --sender scans@example.com --sender '*@example.org'
  postern %[1]s set %[2]s --add-network 10.0.7.0/24 --remove-group trial --note "moved to the 2nd floor"
  postern %[1]s set %[2]s --no-networks`, of.command, of.argument),
		Args:    exactly(1),
		PreRunE: func(cmd *cobra.Command, _ []string) error { return edit.check(cmd) },
		RunE: a.withAccount(of, func(cmd *cobra.Command, s store, u auth.User) error {
			var changes []string
			var after auth.User
			err := of.update(cmd.Context(), s, u.Login, func(u *auth.User) (err error) {
				changes, err = edit.apply(u, time.Now())
				after = *u
				return err
			})
			if err != nil {
				return err
			}
			if len(changes) > 0 {
				if err := noteAccount(cmd.Context(), s, u.Login, "account changed ("+strings.Join(changes,
					"; ")+")"); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), viewOfUser(after))
			}
			if len(changes) == 0 {
				changes = []string{"nothing changes, it is so already"}
			}
			for _, c := range changes {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", u.Login, mail.Printable(c))
			}
			return nil
		}),
	}
	edit.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the account as JSON")
	return cmd
}
