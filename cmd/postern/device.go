package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/operate"
)

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Accounts for printers, scanners and applications"}
	cmd.AddCommand(a.deviceAdd(), a.deviceList(), a.deviceLearn(), a.deviceAccept(), a.deviceForget(),
		a.accountSet(things),
		a.accountShow(things), a.accountPassword(things), a.accountLimits(things), a.accountRemove(things))
	return cmd
}

func (a *app) deviceAdd() *cobra.Command {
	var flags accountFlags
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a device and print the values to type into it",
		Example: `  postern device add scanner-2nd-floor --sender scans@example.com --network 10.0.0.31
  postern device add nas --sender nas@example.com`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.read()
			if err != nil {
				return err
			}
			n := flags.account(args[0])
			n.Device = true
			made, err := a.addAccount(cmd, n, false)
			if err != nil {
				return err
			}
			server, encryption := operate.DeviceServer(c)
			out := cmd.OutOrStdout()
			if asJSON(cmd) {
				return writeJSON(out, operate.DeviceCard{Credential: made, Server: server, Encryption: encryption})
			}
			fmt.Fprintf(out, "Type these into the device:\n\n")
			fmt.Fprintf(out, "  SMTP server  %s\n  Encryption   %s\n  Login        %s\n  Password     %s\n\n", server,
				encryption, made.Login, made.Password)
			fmt.Fprintf(out, "The password is shown this once. The device sends as: %s\n", deviceSenders(n.Senders))
			return nil
		},
	}
	flags.register(cmd)
	return withJSON(cmd)
}

func deviceSenders(senders []string) string {
	if len(senders) == 0 {
		return "what [[policy]] allows this login"
	}
	return strings.Join(senders, ", ")
}
