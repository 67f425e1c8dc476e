package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/operate"
	"postern/relay/status"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Several Posterns at one database"}
	cmd.AddCommand(a.nodeList(), a.nodeDrain())
	return cmd
}

func (a *app) nodeList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the nodes that share the store: which live, which are drained, what each has under way",
		Args:  exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			nodes, err := ops.Nodes.List(cmd.Context(), me())
			switch out := cmd.OutOrStdout(); {
			case err != nil:
				return err
			case asJSON(cmd):
				return writeJSON(out, append([]status.Node{}, nodes...)) // never null
			case !ops.Nodes.Shared():
				_, err = fmt.Fprintln(out, "There is one node, this machine: the store is SQLite.")
			case len(nodes) == 0:
				_, err = fmt.Fprintln(out, "No node has used the store yet.")
			default:
				err = printNodes(out, nodes, time.Now())
			}
			return err
		}),
	})
}

func printNodes(w io.Writer, nodes []status.Node, now time.Time) error {
	if err := table(w, nodeHeading, nodeRows(nodes, now)); err != nil {
		return err
	}
	var b strings.Builder
	for _, n := range nodes {
		if n.State != status.NodeGone && !n.Alike {
			fmt.Fprintf(&b, "\n%s has another configuration: compare its relay.toml.\n", mail.Printable(n.Name))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var nodeHeading = []string{"NAME", "HOST", "STATE", "LEADS", "SINCE", "CARRIES", "VERSION"}

func nodeRows(nodes []status.Node, now time.Time) (rows [][]string) {
	for _, n := range nodes {
		leads := "-"
		if n.Leads {
			leads = "yes"
		}
		rows = append(rows, []string{n.Name, n.Host, nodeState(&n, now), leads, when(n.Since, now),
			fmt.Sprint(n.Carries), orDash(n.Version)})
	}
	return rows
}

func nodeState(n *status.Node, now time.Time) string {
	if n.State != status.NodeGone {
		return string(n.State)
	}
	state := "gone since " + when(n.Seen, now)
	if n.Drained {
		state += ", drained"
	}
	return state
}

func (a *app) nodeDrain() *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Let a node take no mail and begin no delivery, such as before an upgrade; --undo ends that",
		Long: `Let a node take no mail any more and begin no delivery. What it has under way ends, and other nodes
send what waits. It stays so after a restart of the node, until --undo.

"postern node list" shows by CARRIES when it has nothing under way any more.`,
		Example: `  postern node drain mail-2
  postern node drain mail-2 --undo`,
		Args: exactly(1),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			act := ops.Nodes.Drain
			if undo {
				act = ops.Nodes.Undrain
			}
			d, err := act(cmd.Context(), me(), args[0])
			if kind, known := operate.KindOf(err); known && kind == operate.NotFound {
				return fmt.Errorf("%w; which there are: postern node list", err)
			}
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), d)
			}
			return sayDrained(cmd, d)
		}),
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it take mail and send again")
	return withJSON(cmd)
}

// sayDrained says what was done to a node, and what there is to know.
func sayDrained(cmd *cobra.Command, d operate.Drained) error {
	text := fmt.Sprintf("%s is not drained any more.", d.Name)
	if d.Drained {
		text = fmt.Sprintf("%[1]s takes no mail and begins no delivery, until: postern node drain %[1]s --undo", d.Name)
	}
	if d.State == status.NodeGone {
		text += "\nIt does not run at present."
	}
	warn(cmd, d.Warning)
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
