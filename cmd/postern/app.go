package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/internal/textfile"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/keyring"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// app is what all commands share: where the configuration is, and how to reach the store.
type app struct {
	configPath string
	envFile    string // --env-file
	etc        string // where the service's files are
	wide       bool   // tables are not wrapped

	events  func(config.Log) slog.Handler // the log of the service on Windows; nil: it goes to standard error
	crashes func(string, *slog.Logger)    // has a crash written into data_dir; nil: standard error does
	started func()                        // called when serve accepts mail; nil: nobody asks

	poll          time.Duration  // relay.Options.Poll of serve
	dns           keyring.Lookup // for DKIM keys; nil: nobody can look
	yield         func()         // lowers the priority of this process; nil: it stays
	work          int            // to try the passphrase of a backup; 0: as much as is usual
	authorityPort uint16         // of the name servers that `postern dns` asks; 0: 53
}

// logger is that of the service manager where it runs us, or writes to w.
func (a *app) logger(w io.Writer, c config.Log) *slog.Logger {
	if a.events != nil {
		return slog.New(a.events(c))
	}
	return newLogger(w, c)
}

// ready tells the service manager that mail is accepted.
func (a *app) ready() {
	if a.started != nil {
		a.started()
	}
}

// store is the running daemon's store; with SQLite that is the same file.
type store = *relaystore.Store

// path finds the configuration file: --config, $POSTERN_CONFIG, ./relay.toml, /etc/postern/relay.toml.
func (a *app) path() (string, error) {
	if a.configPath != "" {
		return a.configPath, nil
	}
	if p := os.Getenv("POSTERN_CONFIG"); p != "" {
		return p, nil
	}
	places := []string{"relay.toml", filepath.Join(a.etc, "relay.toml")}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return filepath.Abs(p)
		}
	}
	return "", fmt.Errorf("no configuration: neither --config nor POSTERN_CONFIG is set, and there is no %s",
		strings.Join(places, " or "))
}

// load reads and validates the configuration.
func (a *app) load() (*config.Config, error) {
	path, err := a.path()
	if err != nil {
		return nil, err
	}
	return config.Load(path)
}

// read reads the configuration for a command that works beside the daemon: secrets stay unread.
func (a *app) read() (*config.Config, error) {
	path, err := a.path()
	if err != nil {
		return nil, err
	}
	return config.Read(path)
}

// runE is what a command runs.
type runE = func(cmd *cobra.Command, args []string) error

// opener opens the store of a configuration for a command.
type opener = func(cmd *cobra.Command, c *config.Config) (store, error)

// toWrite opens the store, and makes it where there is none.
func toWrite(cmd *cobra.Command, c *config.Config) (store, error) {
	return openStoreOf(cmd.Context(), c)
}

// toLook opens the store for a command that only reads. Where there is none, it makes none and says so.
func toLook(cmd *cobra.Command, c *config.Config) (store, error) {
	o := relaystore.Of(c)
	s, there, err := relaystore.OpenToLook(cmd.Context(), o)
	if err == nil && !there {
		fmt.Fprintf(cmd.ErrOrStderr(), "There is no store at %s yet: the first start of Postern makes it.\n", o.Place())
	}
	return s, err
}

// opened reads the configuration and opens its store.
func opened(cmd *cobra.Command, read func() (*config.Config, error), open opener) (*config.Config, store, error) {
	c, err := read()
	if err != nil {
		return nil, nil, err
	}
	s, err := open(cmd, c)
	return c, s, err
}

// operations opens what a person may do, beside the daemon. done closes it.
func (a *app) operations(cmd *cobra.Command, open opener) (ops *operate.Operations, done func(), err error) {
	c, s, err := opened(cmd, a.read, open)
	if err != nil {
		return nil, nil, err
	}
	return a.operationsOn(c, s), func() { s.Close() }, nil
}

// operationsOn is operations for a configuration and its store.
func (a *app) operationsOn(c *config.Config, s store) *operate.Operations {
	return operate.New(operate.Options{Config: func() *config.Config { return c }, Store: s, DNS: a.dns,
		Lookup: lookupOf(c, s), Version: readBuild().Version,
		Status: func(ctx context.Context) (*status.Report, error) { return askStatus(ctx, c) }})
}

// me is who runs the command line: the owner of data_dir may do everything.
func me() operate.Actor {
	name := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return operate.Actor{Name: name, Channel: operate.CommandLine}
}

// doing is what a command does with the operations.
type doing = func(cmd *cobra.Command, ops *operate.Operations, args []string) error

// operation makes a command of what is done with the operations.
func (a *app) operation(run doing) runE { return a.operationBy(toWrite, run) }

// look is operation for a command that only reads, and makes no store.
func (a *app) look(run doing) runE { return a.operationBy(toLook, run) }

func (a *app) operationBy(open opener, run doing) runE {
	return func(cmd *cobra.Command, args []string) error {
		ops, done, err := a.operations(cmd, open)
		if err != nil {
			return err
		}
		defer done()
		return run(cmd, ops, args)
	}
}

// withSecrets runs what needs the secrets of the configuration.
func (a *app) withSecrets(cmd *cobra.Command, open opener, run func(ops *operate.Operations) error) error {
	c, s, err := opened(cmd, a.load, open)
	if err != nil {
		return err
	}
	defer s.Close()
	return run(a.operationsOn(c, s))
}

func openStoreOf(ctx context.Context, c *config.Config) (store, error) {
	return relaystore.Open(ctx, relaystore.Of(c))
}

// readPassword reads a password from standard input: one line, without its line end.
func readPassword(cmd *cobra.Command) (string, error) {
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if b, err = textfile.Text(b); err != nil {
		return "", fmt.Errorf("the password on standard input %w", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	switch {
	case password == "":
		return "", fmt.Errorf("the password on standard input is empty")
	case len(password) > auth.MaxLength:
		return "", fmt.Errorf("the password is longer than %d octets", auth.MaxLength)
	case strings.ContainsAny(password, "\r\n"):
		return "", fmt.Errorf("standard input has more than one line; give the password alone")
	}
	return password, nil
}
