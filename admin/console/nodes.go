package console

import (
	"postern/mail"
	"postern/operate"
	"postern/relay/status"
)

// nodeActions are those of the page Now.
var nodeActions = []action{
	{path: "/nodes/act/drain", needs: operate.DrainNode, do: drainNode, sheet: "confirm", title: "Nodes"},
	{path: "/nodes/act/undrain", needs: operate.UndrainNode, do: undrainNode},
}

// nodeView is one of several nodes.
type nodeView struct {
	*status.Node
	Icon, Word string
	Here       bool // it is there
}

// nodesOf are the nodes; none where there is only one, which works.
func nodesOf(v *visit, r *status.Report) (all []nodeView) {
	if len(r.Nodes) == 1 && !r.Nodes[0].Drained {
		return nil
	}
	for i := range r.Nodes {
		n := nodeView{&r.Nodes[i], "ok", v.t("working"), true}
		switch n.State {
		case status.NodeDrained:
			n.Icon, n.Word = "hold", v.t("drained")
		case status.NodeGone:
			if n.Icon, n.Word, n.Here = "bad", v.t("not there"), false; n.Drained {
				n.Icon, n.Word = "hold", v.t("drained, not there")
			}
		}
		all = append(all, n)
	}
	return all
}

func drainNode(v *visit) (string, any, error) {
	name := mail.Cut(v.PostForm.Get("name"), maxFilter)
	if !v.confirmed() {
		return "", &confirmation{Question: v.t("Drain node %s?", plain(80, name)),
			Meaning: v.t("It takes no mail any more and begins no delivery. What it has under way ends, and the other "+
				"nodes send what waits.") + " " + v.t("It stays so, also after a restart, until you undo it here."),
			Verb: v.t("Drain"), Action: "/nodes/act/drain", Back: "/#nodes", Fields: []field{{"name", name}}}, nil
	}
	d, err := v.console.Operations.Nodes.Drain(v.Context(), v.actor, name)
	switch {
	case err != nil:
		return "", nil, err
	case d.Warning != "":
		v.leave("Node %s is drained. No node takes mail now.", d.Name)
	default:
		v.leave("Node %s is drained. What it has under way ends.", d.Name)
	}
	return "/", nil, nil
}

func undrainNode(v *visit) (string, any, error) {
	d, err := v.console.Operations.Nodes.Undrain(v.Context(), v.actor, mail.Cut(v.PostForm.Get("name"), maxFilter))
	if err != nil {
		return "", nil, err
	}
	v.leave("Node %s is not drained any more.", d.Name)
	return "/", nil, nil
}
