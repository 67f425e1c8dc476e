package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"postern/relay/config"
)

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Accounts for printers, scanners and applications"}
	cmd.AddCommand(a.deviceAdd(), a.accountList(things), a.accountSet(things), a.accountPassword(things),
		a.accountRemove(things))
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
			u, err := flags.user(cmd, args[0])
			if err != nil {
				return err
			}
			u.Device = true
			password, err := a.addAccount(cmd, &u, false)
			if err != nil {
				return err
			}
			server, encryption := deviceServer(c)
			out := cmd.OutOrStdout()
			if asJSON(cmd) {
				return writeJSON(out, newDeviceView{newAccountView{u.Login, password}, server, encryption})
			}
			fmt.Fprintf(out, "Type these into the device:\n\n")
			fmt.Fprintf(out, "  SMTP server  %s\n  Encryption   %s\n  Login        %s\n  Password     %s\n\n", server,
				encryption, u.Login, password)
			fmt.Fprintf(out, "The password is shown this once. The device sends as: %s\n", deviceSenders(u.Senders))
			return nil
		},
	}
	flags.register(cmd)
	return withJSON(cmd)
}

// newDeviceView is what is to be typed into a device, as --json prints it.
type newDeviceView struct {
	newAccountView
	Server     string `json:"server"` // "host port N"
	Encryption string `json:"encryption"`
}

func deviceSenders(senders []string) string {
	if len(senders) == 0 {
		return "what [[policy]] allows this login"
	}
	return strings.Join(senders, ", ")
}

// deviceServer chooses the listener that a device finds easiest: one that takes TLS first or STARTTLS,
// then STARTTLS, then implicit TLS.
func deviceServer(c *config.Config) (server, encryption string) {
	words := map[string]string{"auto": "TLS or STARTTLS, whichever the device has", "starttls": "STARTTLS",
		"implicit": "TLS (also called SSL)", "none": "none"}
	for _, mode := range []string{"auto", "starttls", "implicit", "none"} {
		for _, l := range c.Listeners {
			if l.TLS != mode {
				continue
			}
			_, port, _ := net.SplitHostPort(l.Address)
			return fmt.Sprintf("%s port %s", c.Hostname, port), words[mode]
		}
	}
	return c.Hostname, words["starttls"]
}
