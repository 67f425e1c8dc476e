package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"postern/operate"
)

// accounts are which accounts a group of commands is for, and what they are called there.
type accounts struct {
	command, argument, one, list string
	among                        operate.Among
}

var (
	people = accounts{command: "user", argument: "LOGIN", one: "an account", list: "accounts"}
	things = accounts{command: "device", argument: "NAME", one: "a device", list: "devices",
		among: operate.DevicesOnly}
)

// explain says where to look for what an error is about, and makes what cannot be wrong usage.
func (of accounts) explain(cmd *cobra.Command, err error) error {
	switch kind, known := operate.KindOf(err); {
	case known && kind == operate.Invalid:
		return usage(cmd, err)
	case known && kind == operate.NotFound:
		return fmt.Errorf("%w; see: postern %s list", err, of.command)
	}
	return err
}

// toAccount is what a command does with one of the accounts.
type toAccount = func(cmd *cobra.Command, ops *operate.Operations, login string) error

// account makes a command of what is done with one of the accounts.
func (a *app) account(of accounts, run toAccount) runE { return a.accountBy(toWrite, of, run) }

// lookAt is account for a command that only reads, and makes no store.
func (a *app) lookAt(of accounts, run toAccount) runE { return a.accountBy(toLook, of, run) }

func (a *app) accountBy(open opener, of accounts, run toAccount) runE {
	return func(cmd *cobra.Command, args []string) error {
		login, err := operate.CheckLogin(args[0])
		if err != nil {
			return usage(cmd, err)
		}
		ops, done, err := a.operations(cmd, open)
		if err != nil {
			return err
		}
		defer done()
		return of.explain(cmd, run(cmd, ops, login))
	}
}

// chosenPassword reads a password from standard input where that was asked for, once it is known that somebody can have
// it.
func chosenPassword(cmd *cobra.Command, stdin bool) (string, error) {
	if !stdin {
		return "", nil
	}
	return readPassword(cmd)
}

// warn shows the warning of an operation that was done.
func warn(cmd *cobra.Command, warning string) {
	if warning != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
	}
}

// loginHint says that a login does not exist, for an empty answer about it; "" if it does.
func loginHint(ctx context.Context, ops *operate.Operations, login string) string {
	if login == "" {
		return ""
	}
	_, err := ops.Accounts.Get(ctx, me(), operate.Everybody, login)
	if kind, known := operate.KindOf(err); !known || kind != operate.NotFound {
		return ""
	}
	return fmt.Sprintf("\n%v; see: postern user list", err)
}
