package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/mail"
	"postern/operate"
)

// editFlags are those of one list of an account.
type editFlags struct {
	name string // of the list, in the singular
	edit *operate.ListEdit
}

func (f editFlags) register(cmd *cobra.Command, placeholder, what string) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.edit.Set, f.name, nil, what+", in place of all it has; may be repeated")
	flags.StringArrayVar(&f.edit.Add, "add-"+f.name, nil, what+", beside those it has")
	flags.StringArrayVar(&f.edit.Remove, "remove-"+f.name, nil, fmt.Sprintf("`%s` to take out", placeholder))
	flags.BoolVar(&f.edit.Clear, "no-"+f.name+"s", false, "no "+f.name+"s of its own any more")
}

// check refuses flags that contradict each other, by their names.
func (f editFlags) check() error {
	if err := f.edit.Check(); err != nil {
		return fmt.Errorf("%[2]w (--no-%[1]ss stands alone, --%[1]s gives the whole list, --add-%[1]s and "+
			"--remove-%[1]s change it)", f.name, err)
	}
	return nil
}

// accountEdit is everything that `user set` and `device set` change.
type accountEdit struct {
	operate.AccountEdit
	note        string
	certificate certificateFlags
	edits       bool // something of AccountEdit
}

func (e *accountEdit) lists() []editFlags {
	return []editFlags{{"sender", &e.Senders}, {"network", &e.Networks}, {"group", &e.Groups}}
}

func (e *accountEdit) register(cmd *cobra.Command) {
	l := e.lists()
	l[0].register(cmd, "pattern", "`pattern` (address, *@domain) that it may send as")
	l[1].register(cmd, "CIDR", "network (`CIDR`) that it may log in from")
	l[2].register(cmd, "group", "`group` for [[policy]] and [[route]]")
	cmd.Flags().StringVar(&e.note, "note", "", `a word for those who list the accounts; --note "" removes it`)
	e.certificate.register(cmd)
}

// check looks at the flags before anything is opened.
func (e *accountEdit) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("note") {
		e.Note = &e.note
	}
	asked := e.Note != nil
	for _, l := range e.lists() {
		if err := l.check(); err != nil {
			return usage(cmd, err)
		}
		asked = asked || l.edit.Asked()
	}
	e.edits = asked
	switch err := e.certificate.check(); {
	case err != nil:
		return usage(cmd, err)
	case asked:
		return usage(cmd, e.AccountEdit.Check())
	case !e.certificate.asked():
		return usage(cmd, errors.New("nothing to change: give --sender, --network, --group, --note or --certificate"))
	}
	return nil
}

// apply changes an account and returns it, with what is new in words.
func (e *accountEdit) apply(cmd *cobra.Command, ops *operate.Operations, of accounts, login string) (
	after auth.User, changes []string, err error) {
	pinned, err := e.certificate.apply(cmd, ops, of, login)
	if err != nil {
		return after, nil, err
	}
	if e.edits {
		after, changes, err = ops.Accounts.Edit(cmd.Context(), me(), of.among, login, e.AccountEdit)
	} else {
		after, err = ops.Accounts.Get(cmd.Context(), me(), of.among, login)
	}
	return after, append(pinned, changes...), err
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
  postern %[1]s set %[2]s --no-networks
  postern %[1]s set %[2]s --certificate client.pem`, of.command, of.argument),
		Args:    exactly(1),
		PreRunE: func(cmd *cobra.Command, _ []string) error { return edit.check(cmd) },
		RunE: a.account(of, func(cmd *cobra.Command, ops *operate.Operations, login string) error {
			after, changes, err := edit.apply(cmd, ops, of, login)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), operate.ShownAccount(after))
			}
			if len(changes) == 0 {
				changes = []string{"nothing changes, it is so already"}
			}
			for _, c := range changes {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", login, mail.Printable(c))
			}
			return nil
		}),
	}
	edit.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the account as JSON")
	return cmd
}
