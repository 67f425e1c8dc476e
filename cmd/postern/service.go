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
	add := func(use, short, long string, run func() error) {
		cmd.AddCommand(&cobra.Command{Use: use, Short: short, Long: long, Args: exactly(0),
			RunE: func(*cobra.Command, []string) error { return run() }})
	}
	add("install", "Install the service, or bring it up to date",
		`Make the service, its directories and its source in the Event Log, or bring them up to date. Only SYSTEM,
administrators and the service may use the directories. It starts with Windows and again when it fails; now it is
started by: postern service start. With --config the service has another relay.toml.`, a.installService)
	add("remove", "Stop and remove the service; mail and configuration stay", "", a.removeService)
	add("start", "Start the service, and wait until it accepts mail", "", a.startService)
	add("stop", "Stop the service, and wait until it has let go of its mail", "", a.stopService)
	return cmd
}
