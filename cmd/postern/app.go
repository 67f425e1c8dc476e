package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/internal/textfile"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// app is what all commands share: where the configuration is, and how to reach the store.
type app struct {
	configPath string
	envFile    string // --env-file
	etc        string // where the service's files are
	wide       bool   // tables are not wrapped

	authorityPort uint16 // of the name servers that `postern dns` asks; 0: 53
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

// openStore opens the store beside the daemon.
func (a *app) openStore(ctx context.Context) (store, error) {
	c, err := a.read()
	if err != nil {
		return nil, err
	}
	return openStoreOf(ctx, c)
}

// runE is what a command runs.
type runE = func(cmd *cobra.Command, args []string) error

// withStore makes a command of what is done with the store.
func (a *app) withStore(run func(cmd *cobra.Command, s store, args []string) error) runE {
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.openStore(cmd.Context())
		if err != nil {
			return err
		}
		defer s.Close()
		return run(cmd, s, args)
	}
}

func openStoreOf(ctx context.Context, c *config.Config) (store, error) {
	return relaystore.Open(ctx, relaystore.Options{Dir: c.DataDir, Logger: slog.New(slog.DiscardHandler)})
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
