package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"postern/internal/periodic"
	"postern/relay"
	"postern/relay/check"
	"postern/relay/config"
)

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the relay",
		Long: `Run the relay until SIGTERM, which lets transactions and attempts end. SIGHUP, or a change of the
configuration file, loads the configuration again: it is validated whole and swapped, and a bad one
changes nothing. On Windows Ctrl-C, or the service manager, does what SIGTERM does.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			log := a.logger(cmd.ErrOrStderr(), c.Log)
			if a.crashes != nil {
				a.crashes(c.DataDir, log)
			}
			for _, w := range check.Warnings(c, time.Now()) {
				log.Warn("configuration: " + w.String())
			}
			hup := make(chan os.Signal, 1) // before the store opens, which may take a while: unheard, it kills
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			path := c.Path()
			sockets := inheritSockets(log)
			srv, err := relay.New(cmd.Context(), relay.Options{
				Poll:   a.poll,
				Config: c,
				Logger: log,
				Load:   func() (*config.Config, error) { return config.Load(path) },
				DNS:    a.dns,
				Ready:  func() { notify(daemon.SdNotifyReady); a.ready() }, Version: readBuild().Version,
				Inherited: sockets, HandOver: func(all []net.Listener) { handOver(log, all) },
			})
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(cmd.Context())
			var beside sync.WaitGroup
			defer func() { stop(); beside.Wait() }()
			beside.Go(func() { reloadOnHangup(ctx, hup, srv) })
			beside.Go(func() { keepWatchdog(ctx) })
			context.AfterFunc(ctx, func() { notify(daemon.SdNotifyStopping) })
			return srv.Run(ctx)
		},
	}
}

// notify tells systemd; without it nothing happens.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// reloadOnHangup reloads on each SIGHUP until ctx ends.
func reloadOnHangup(ctx context.Context, hup <-chan os.Signal, srv *relay.Server) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			notify(daemon.SdNotifyReloading + "\nMONOTONIC_USEC=" + monotonic())
			_ = srv.Reload(ctx) // reported in the log; the configuration in force stays
			notify(daemon.SdNotifyReady)
		}
	}
}

// keepWatchdog tells systemd that we live, twice in each interval that it asks for.
func keepWatchdog(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	periodic.Run(ctx, interval/2, func() { notify(daemon.SdNotifyWatchdog) })
}

// checkView is what `check --json` prints.
type checkView struct {
	File     string           `json:"file"`
	OK       bool             `json:"ok"`
	Problems []config.Problem `json:"problems"`
	Warnings []config.Problem `json:"warnings"`
}

func (a *app) checkCommand() *cobra.Command {
	starting := false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration, certificates and keys without starting",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := a.path()
			if err != nil {
				return err
			}
			look := check.Config
			if starting {
				look = check.ButAddresses
			}
			c, problems := look(cmd.Context(), path)
			if asJSON(cmd) {
				view := checkView{File: path, OK: len(problems) == 0, Problems: append([]config.Problem{}, problems...),
					Warnings: []config.Problem{}}
				if view.OK {
					view.Warnings = append(view.Warnings, warningsNow(cmd.Context(), c)...)
				}
				if err := writeJSON(cmd.OutOrStdout(), view); err != nil || view.OK {
					return err
				}
				return errSilent
			}
			for _, p := range problems {
				fmt.Fprintln(cmd.ErrOrStderr(), p)
			}
			if len(problems) > 0 {
				return errSilent
			}
			for _, w := range warningsNow(cmd.Context(), c) {
				fmt.Fprintf(cmd.OutOrStdout(), "warning: %s\n", w)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is right: %s, %s.\n", path, plural(int64(len(c.Listeners)), "listener"),
				plural(int64(len(c.Upstreams)), "upstream"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&starting, "starting", false,
		"just before serve, for units: not whether addresses are in use, which systemd may keep open during a restart")
	return withJSON(cmd)
}

// warningsNow are those of check, with the sources of logins that cannot be reached now.
func warningsNow(ctx context.Context, c *config.Config) []config.Problem {
	return append(check.Warnings(c, time.Now()), check.Unreachable(ctx, c)...)
}

// monotonic is CLOCK_MONOTONIC in microseconds, which Type=notify-reload wants with RELOADING=1.
func monotonic() string {
	us, err := monotonicMicroseconds()
	if err != nil {
		return "0"
	}
	return strconv.FormatInt(us, 10)
}
