package main

import (
	"github.com/spf13/cobra"
)

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Run Postern as a service of Windows",
		Long: `Install, remove, start or stop the service of Windows, as administrator. It runs postern serve under
the account NT SERVICE\postern, which nobody can log in with, with the relay.toml in C:\ProgramData\Postern, and
writes its log to the Event Log (Application, source postern). On other systems: systemctl, or rc-service.`,
	}
	// They need no environment: SYSTEM reads nothing there before it has looked whose it is.
	cmd.PersistentPreRun = func(cmd *cobra.Command, _ []string) { showOn(cmd.Root(), a.wide) }
	add := func(use, short, long string, run func() error) {
		cmd.AddCommand(&cobra.Command{Use: use, Short: short, Long: long, Args: exactly(0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				err := run()
				noteFailure("service "+cmd.Name(), err)
				return err
			}})
	}
	add("install", "Install the service, or bring it up to date",
		`Make the service, its directories and its source in the Event Log, or bring them up to date. Only SYSTEM,
administrators and the service may use the directories. It starts with Windows and again when it fails; now it is
started by: postern service start. With --config the service has another relay.toml, and keeps it: an upgrade takes
relay.toml and the account from the service that is there. Else it is that of $POSTERN_CONFIG, or the usual one, never
./relay.toml.`, a.installService)
	add("remove", "Stop and remove the service; mail and configuration stay", "", a.removeService)
	add("start", "Start the service, and wait until it accepts mail", "", a.startService)
	add("stop", "Stop the service, and wait until it has let go of its mail", "", a.stopService)
	return cmd
}
