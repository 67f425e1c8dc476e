package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/queue"
	relaystore "postern/relay/store"
	"postern/relay/upstream/profile"
)

func completionCommand() *cobra.Command {
	shells := map[string]func(root *cobra.Command, w io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":        (*cobra.Command).GenZshCompletion,
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
	}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script with which a shell completes commands, options, logins and message ids",
		Long: `Print the script with which bash, zsh, fish or powershell completes what you type after "postern":
commands, options, and the names that the configuration and the store have, where you may read them. The script asks
this binary, so that it stays right when the binary is replaced. bash needs its package bash-completion.`,
		Example: `  postern completion bash > /etc/bash_completion.d/postern
  postern completion zsh > /usr/local/share/zsh/site-functions/_postern
  postern completion fish > /etc/fish/completions/postern.fish
  postern completion powershell >> $PROFILE`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      wrongUsage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return shells[args[0]](cmd.Root(), cmd.OutOrStdout())
		},
	}
}

// suggested lists what an argument may be, each with a tab and a word about it if there is one.
type suggested = func(cmd *cobra.Command) ([]string, error)

// complete tells shells what the arguments of commands may be. Nothing is a file unless it is said here.
func (a *app) complete(root *cobra.Command) {
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	for _, of := range []struct {
		list     suggested
		commands string
	}{
		{a.logins(operate.Everybody), "user show, user set, user password, user limits, user lock, user unlock, " +
			"user remove, client, auth test, app-password add, app-password list, app-password revoke"},
		{a.logins(operate.DevicesOnly), "device show, device set, device password, device limits, device remove"},
		{a.waiting, "queue show, queue retry, queue hold, queue release, queue resend, queue delete, queue bounce"},
		{a.upstreams, "upstream test, upstream login"},
		{profiles, "upstream profiles"},
		{a.signingDomains, "dkim check, dkim dns, dkim rotate, dkim retire, dkim remove"},
	} {
		for path := range strings.SplitSeq(of.commands, ", ") {
			cmd, _, _ := root.Find(strings.Fields(path))
			cmd.ValidArgsFunction = a.first(of.list, strings.HasSuffix(cmd.Use, "…"))
		}
	}
	for _, path := range []string{"user import", "backup", "restore"} {
		cmd, _, _ := root.Find(strings.Fields(path))
		cmd.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveDefault)
	}
	a.completeFlags(root)
}

// completeFlags says what the values of flags may be, by the word that help has for the value.
func (a *app) completeFlags(cmd *cobra.Command) {
	values := map[string]cobra.CompletionFunc{
		"file":         cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		"directory":    cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		"login":        a.first(a.logins(operate.Everybody), true),
		"[[upstream]]": a.first(a.upstreams, true),
		"profile":      a.first(profiles, true),
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if name, _ := pflag.UnquoteUsage(f); values[name] != nil {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, values[name]) // fails only where there is one already
		}
	})
	for _, sub := range cmd.Commands() {
		a.completeFlags(sub)
	}
}

// first completes the first argument, or every one, with what a list has. Where there is no configuration or store, or
// none that may be read, nothing is suggested: a shell has no place for an error.
func (a *app) first(list suggested, every bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		const nothingElse = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		if len(args) > 0 && !every {
			return nil, nothingElse
		}
		all, err := list(cmd)
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
			return nil, nothingElse
		}
		var fit []string
		for _, s := range all {
			if strings.HasPrefix(s, typed) {
				fit = append(fit, s)
			}
		}
		return fit, nothingElse
	}
}

// known is read where no command has loaded the environment before.
func (a *app) known(cmd *cobra.Command) (*config.Config, error) {
	if err := a.loadEnv(cmd); err != nil {
		return nil, err
	}
	return a.read()
}

// ask asks the store, if there is one; it makes none.
func (a *app) ask(cmd *cobra.Command, run func(ctx context.Context, ops *operate.Operations) error) error {
	c, err := a.known(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second) // somebody waits at the prompt
	defer cancel()
	s, err := relaystore.OpenThere(ctx, relaystore.Of(c))
	if s == nil || err != nil {
		return err
	}
	defer s.Close()
	return run(ctx, a.operationsOn(c, s))
}

func (a *app) logins(among operate.Among) suggested {
	return func(cmd *cobra.Command) (found []string, err error) {
		err = a.ask(cmd, func(ctx context.Context, ops *operate.Operations) error {
			users, _, err := ops.Accounts.List(ctx, me(), among)
			for _, u := range users {
				found = append(found, cobra.CompletionWithDesc(u.Login, u.Note))
			}
			return err
		})
		return found, err
	}
}

// waiting are the oldest messages of the queue.
func (a *app) waiting(cmd *cobra.Command) (found []string, err error) {
	err = a.ask(cmd, func(ctx context.Context, ops *operate.Operations) error {
		messages, err := ops.Queue.List(ctx, me(), queue.Filter{Limit: 100})
		for _, m := range messages {
			found = append(found, cobra.CompletionWithDesc(m.ID, m.Envelope.From.Path()+" to "+recipients(m)))
		}
		return err
	})
	return found, err
}

func (a *app) signingDomains(cmd *cobra.Command) (found []string, err error) {
	err = a.ask(cmd, func(ctx context.Context, ops *operate.Operations) error {
		keys, err := ops.Keys.List(ctx, me())
		for _, k := range keys {
			found = append(found, k.Domain)
		}
		slices.Sort(found)
		found = slices.Compact(found)
		return err
	})
	return found, err
}

func (a *app) upstreams(cmd *cobra.Command) (found []string, err error) {
	c, err := a.known(cmd)
	if err != nil {
		return nil, err
	}
	for _, u := range c.Upstreams {
		found = append(found, cobra.CompletionWithDesc(u.Name, u.Host))
	}
	return found, nil
}

func profiles(*cobra.Command) (found []string, _ error) {
	for _, p := range profile.All() {
		found = append(found, cobra.CompletionWithDesc(p.Name, p.Title))
	}
	return found, nil
}
