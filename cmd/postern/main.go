// Command postern is an authenticating SMTP submission relay. This package holds flags, signals and
// what people read on a terminal; the work is done in package relay and below.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"postern/internal/places"
	"postern/relay"
	"postern/relay/dnscheck"
)

// Exit codes: the answer is no, and wrong usage.
const (
	exitNo    = 1
	exitUsage = 2
)

func main() {
	a := newApp()
	a.yield = yieldToMail
	if code, is := runAsService(a, os.Args[1:]); is {
		os.Exit(code)
	}
	os.Exit(run(rootCommandOf(a), os.Args[1:]))
}

// run executes one command line until it ends, or a signal ends it, and returns the exit code.
func run(root *cobra.Command, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return runIn(ctx, root, args)
}

// runIn is run until ctx ends.
func runIn(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(root.ErrOrStderr(), "postern: %v\nSee 'postern %s--help'.\n", usage, usage.command)
		return exitUsage
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintf(root.ErrOrStderr(), "postern: %v\n", err)
	}
	return exitNo
}

// errSilent ends a command with exit code 1 after it has said everything itself.
var errSilent = errors.New("")

// usageError is a wrong command line: exit code 2.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	name := ""
	if cmd.HasParent() {
		name = cmd.CommandPath()[len(cmd.Root().Name())+1:] + " "
	}
	return &usageError{err, name}
}

// exactly checks the number of arguments; a wrong number is wrong usage.
func exactly(n int) cobra.PositionalArgs { return wrongUsage(cobra.ExactArgs(n)) }

func wrongUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return usage(cmd, check(cmd, args)) }
}

func newApp() *app { return &app{etc: places.Etc(), poll: relay.Poll, dns: dnscheck.KeyLookup{}} }

func rootCommand() *cobra.Command { return rootCommandOf(newApp()) }

// readsALot reports a command that may read all of the store beside the daemon. A backup is none: the sooner it ends,
// the less the log grows.
func readsALot(cmd *cobra.Command) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" "), " ")
	return name == "trace" || name == "stats"
}

func rootCommandOf(app *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "postern",
		Short: "Authenticating SMTP submission relay",
		Long: `Postern takes mail from people, printers and applications that log in with a password over TLS,
checks who may send as whom and how much, signs it, and hands it to your mail provider from a
durable queue.

Try it without any configuration:  postern demo`,
		Version:       readBuild().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		showOn(cmd.Root(), app.wide)
		if app.yield != nil && readsALot(cmd) {
			app.yield()
		}
		return app.loadEnv(cmd)
	}
	service := filepath.Join(places.Etc(), "relay.toml")
	root.PersistentFlags().StringVar(&app.configPath, "config", "",
		"configuration `file` (default $POSTERN_CONFIG, ./relay.toml, "+service+")")
	root.PersistentFlags().StringVar(&app.envFile, "env-file", "",
		"`file` with NAME=value for secrets named env:NAME, as systemd reads it (default "+
			filepath.Join(places.Etc(), "env")+", with "+service+")")
	root.PersistentFlags().BoolVar(&app.wide, "wide", false, "do not wrap tables to the width of the terminal")
	root.AddCommand(
		app.demoCommand(), app.setupCommand(), app.serveCommand(), app.checkCommand(),
		app.userCommand(), app.deviceCommand(), app.appPasswordCommand(), app.authCommand(), app.clientCommand(),
		app.queueCommand(),
		app.withSearch(app.traceCommands()),
		app.statsCommand(), app.settingsCommand(),
		app.dkimCommand(), app.dnsCommand(), app.certCommand(),
		app.upstreamCommand(), app.alertCommand(), app.statusCommand(), app.doctorCommand(),
		versionCommand(), changesCommand(), completionCommand(),
		app.consoleCommand(), app.tokenCommand(), app.auditCommand(), app.storeCommand(), app.nodeCommand(),
		app.backupCommand(), app.restoreCommand(),
		app.secretCommand(), app.serviceCommand(),
	)
	for _, c := range root.Commands() {
		requireSubcommand(c)
	}
	app.complete(root)
	return root
}

// requireSubcommand makes a group of commands that is called without one, or with a wrong one, wrong usage.
func requireSubcommand(c *cobra.Command) {
	if !c.HasSubCommands() || c.Runnable() {
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, fmt.Errorf("%s needs a subcommand", cmd.CommandPath()))
		}
		return unknownCommand(cmd, args[0])
	}
}
