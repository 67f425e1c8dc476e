package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/devices"
)

func (a *app) deviceLearn() *cobra.Command {
	var r operate.LearnRequest
	var span string
	var stop bool
	cmd := &cobra.Command{
		Use:   "learn",
		Short: "Let the devices of a network send without login for a while, and see who they are",
		Long: `Let the clients of one network send to a listener with profile = "appliance" without login, for two hours
at most. What they send is held and goes to nobody; "postern device list" proposes the devices that were seen, and
"postern device accept ADDRESS" makes one an account. It ends by itself, also if postern does not run then.`,
		Example: `  postern device learn --network 10.0.5.0/24 --for 1h
  postern device learn --listener devices --network 10.0.5.31/32
  postern device learn --stop`,
		Args: exactly(0),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			if stop {
				return stopLearning(cmd, ops, r.Listener)
			}
			d, err := config.ParseDuration(span)
			if err != nil {
				return usage(cmd, fmt.Errorf("--for %w", err))
			}
			r.For = d.Std()
			if r.Network == "" {
				return usage(cmd, fmt.Errorf("--network is missing: which addresses may send without login"))
			}
			l, err := ops.Devices.Learn(cmd.Context(), me(), r)
			if err != nil {
				return things.explain(cmd, err)
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), l)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Until %s devices of %s may send to listener %s without login.\n"+
				"What they send is held. Let each send something, then: postern device list\n",
				when(l.Until, time.Now()), l.Network, l.Listener)
			return nil
		}),
	}
	cmd.Flags().StringVar(&r.Listener, "listener", "", "`name` of the listener; default: the only one for old devices")
	cmd.Flags().StringVar(&r.Network, "network", "", "addresses (`CIDR`) that are learned, /20 at most")
	cmd.Flags().StringVar(&span, "for", "1h", "how `long`, two hours at most")
	cmd.Flags().BoolVar(&stop, "stop", false, "end what is being learned")
	return withJSON(cmd)
}

func stopLearning(cmd *cobra.Command, ops *operate.Operations, listener string) error {
	n, err := ops.Devices.StopLearning(cmd.Context(), me(), listener)
	if err != nil {
		return err
	}
	if asJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), map[string]int64{"stopped": n})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Stopped: %d. What was held stays so: postern queue list --login %q\n", n,
		devices.LearningLogin)
	return nil
}

func (a *app) deviceAccept() *cobra.Command {
	var r operate.Acceptance
	cmd := &cobra.Command{
		Use:   "accept ADDRESS [NAME]",
		Short: "Make an account of a device that was seen while learning",
		Long: `Make an account of a device, with the addresses that it was seen to send as. From then on it
needs no login at its address; elsewhere, and where it can, it logs in with the password that is printed once.`,
		Example: `  postern device accept 10.0.5.31
  postern device accept 10.0.5.31 scanner-2nd-floor --sender scans@example.com --release`,
		Args: cobra.RangeArgs(1, 2),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			r.Address = args[0]
			if len(args) > 1 {
				r.Name = args[1]
			}
			done, err := ops.Devices.Accept(cmd.Context(), me(), r)
			if err != nil {
				return things.explain(cmd, err)
			}
			warn(cmd, done.Warning)
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), done)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "Device %s at %s needs no login at listener %s and sends as: %s\n", done.Login,
				done.Address, done.Listener, deviceSenders(done.Senders))
			fmt.Fprintf(out, "Where it can log in:\n\n  Login     %s\n  Password  %s\n\n", done.Login, done.Password)
			fmt.Fprintln(out, "The password is shown this once.")
			if r.Release {
				fmt.Fprintf(out, "Released %d held messages of it.\n", done.Released)
			}
			return nil
		}),
	}
	cmd.Flags().StringArrayVar(&r.Senders, "sender", nil,
		"`pattern` (address, *@domain) that it may send as; may be repeated; default: what it was seen to use")
	cmd.Flags().StringArrayVar(&r.Groups, "group", nil, "`group` for [[policy]] and [[route]]; may be repeated")
	cmd.Flags().StringVar(&r.Note, "note", "", "a word for those who list the devices")
	cmd.Flags().BoolVar(&r.Release, "release", false, "send what is held of it, as far as it is from these senders")
	return withJSON(cmd)
}
