package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/operate"
	"postern/relay/devices"
)

// seenDevice is a device in JSON: its account, and what was last seen of it.
type seenDevice struct {
	operate.Account
	operate.Sighting
}

// learnedNetwork and proposedDevice are the other things in that list; kind tells them apart.
type learnedNetwork struct {
	Kind string `json:"kind"` // "learning"
	devices.Learning
}

type proposedDevice struct {
	Kind string `json:"kind"` // "proposal"
	operate.Proposal
}

// deviceReport is what is known of devices.
type deviceReport struct {
	users     []auth.User
	locks     []auth.Lock
	seen      map[string]operate.Sighting
	learnings []devices.Learning
	proposals []operate.Proposal
	now       time.Time
}

func (a *app) deviceList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the devices: last seen, last error, TLS; and those that were seen while learning",
		Args:  exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			r, err := readDevices(cmd, ops)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), r.list())
			}
			return r.print(cmd.OutOrStdout())
		}),
	})
}

func readDevices(cmd *cobra.Command, ops *operate.Operations) (r deviceReport, err error) {
	ctx := cmd.Context()
	r.now = time.Now()
	if r.users, r.locks, err = ops.Accounts.List(ctx, me(), operate.DevicesOnly); err != nil {
		return r, err
	}
	if r.seen, err = ops.Devices.Sightings(ctx, me(), r.users); err != nil {
		return r, err
	}
	if r.learnings, err = ops.Devices.Learnings(ctx, me(), r.now); err != nil {
		return r, err
	}
	r.proposals, err = ops.Devices.Proposals(ctx, me(), r.now)
	return r, err
}

func (r *deviceReport) list() []any {
	list := []any{}
	for _, u := range r.users {
		list = append(list, seenDevice{operate.ShownAccount(u), r.seen[u.Login]})
	}
	for _, l := range operate.ShownLockouts(r.locks) {
		list = append(list, l)
	}
	for _, l := range r.learnings {
		list = append(list, learnedNetwork{"learning", l})
	}
	for _, p := range r.proposals {
		list = append(list, proposedDevice{"proposal", p})
	}
	return list
}

func (r *deviceReport) print(w io.Writer) error {
	if err := r.printDevices(w); err != nil {
		return err
	}
	if err := printLockouts(w, r.locks, r.now); err != nil {
		return err
	}
	for _, l := range r.learnings {
		fmt.Fprintf(w, "\nLearning: devices of %s may send to listener %s without login until %s, to be held.\n",
			l.Network, l.Listener, when(l.Until, r.now))
	}
	return r.printProposals(w)
}

func (r *deviceReport) printDevices(w io.Writer) error {
	if len(r.users) == 0 {
		fmt.Fprintln(w, "There are no devices yet. Add one: postern device add NAME --sender ADDRESS, or see: postern "+
			"device learn")
		return nil
	}
	var rows [][]string
	for _, u := range r.users {
		status, s := "active", r.seen[u.Login]
		if u.Locked {
			status = strings.TrimSpace("locked " + u.LockReason)
		}
		rows = append(rows, []string{u.Login, status, list(u.Senders), list(u.Networks), when(s.Seen, r.now),
			orDash(s.TLS), lastError(s.Fault, s.FaultAt, r.now), orDash(u.Note)})
	}
	return table(w, []string{"NAME", "STATUS", "SENDERS", "NETWORKS", "LAST SEEN", "TLS", "LAST ERROR", "NOTE"}, rows)
}

func lastError(fault string, at, now time.Time) string {
	if fault == "" {
		return "-"
	}
	return when(at, now) + " " + fault
}

func (r *deviceReport) printProposals(w io.Writer) error {
	if len(r.proposals) == 0 {
		return nil
	}
	fmt.Fprint(w, "\nSeen while learning:\n\n")
	var rows [][]string
	for _, p := range r.proposals {
		rows = append(rows, []string{p.Address, orDash(p.Hello), orDash(p.TLS), orDash(p.Login), list(p.Senders),
			list(p.Recipients), fmt.Sprint(p.Messages), when(p.Last, r.now), orDash(p.Fault)})
	}
	err := table(w, []string{"ADDRESS", "NAME", "TLS", "LOGIN TRIED", "SENDS AS", "SENDS TO", "HELD", "LAST SEEN",
		"LAST ERROR"}, rows)
	fmt.Fprint(w, "\nTo make one an account: postern device accept ADDRESS\n")
	return err
}
