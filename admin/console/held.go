package console

import (
	"cmp"
	"slices"

	"postern/operate"
	"postern/relay/queue"
)

// heldPage shows what waits for a person, by login.
var heldPage = page{path: "/held", title: "Held", menu: true, needs: operate.SeeQueue, sheet: "held", show: showHeld}

// heldView is the body of the page.
type heldView struct {
	Groups  []heldGroup
	Total   int64 // of all that are held
	Shown   int
	Login   string // that is shown alone
	Pager   pager
	Buttons []button
	Here    string
}

// heldGroup is the held messages of one login on this page.
type heldGroup struct {
	Login   string
	Reasons []heldReason
	Rows    []messageRow
}

// heldReason is why, and how many.
type heldReason struct {
	Text string
	N    int
}

func showHeld(v *visit) (any, error) {
	q := v.URL.Query()
	f := queue.Filter{Held: true, Login: filterOf(q).Login}
	messages, next, err := listQueue(v, f, q.Get("after"))
	if err != nil {
		return nil, err
	}
	view := heldView{Login: f.Login, Shown: len(messages), Pager: v.paged("after", next), Here: v.here(),
		Buttons: buttonsOf(v, &releasing, &bouncing, &deleting)}
	if r, err := v.console.Operations.Status.Report(v.Context(), v.actor); err == nil {
		view.Total = r.Queue.Held
	}
	for _, m := range messages {
		i := slices.IndexFunc(view.Groups, func(g heldGroup) bool { return g.Login == m.Login })
		if i < 0 {
			i = len(view.Groups)
			view.Groups = append(view.Groups, heldGroup{Login: m.Login})
		}
		view.Groups[i].add(rowOf(v, m))
	}
	slices.SortStableFunc(view.Groups, func(a, b heldGroup) int {
		return cmp.Or(cmp.Compare(len(b.Rows), len(a.Rows)), cmp.Compare(a.Login, b.Login))
	})
	return view, nil
}

func (g *heldGroup) add(r messageRow) {
	g.Rows = append(g.Rows, r)
	i := slices.IndexFunc(g.Reasons, func(h heldReason) bool { return h.Text == r.Reason })
	if i < 0 {
		i = len(g.Reasons)
		g.Reasons = append(g.Reasons, heldReason{Text: r.Reason})
	}
	g.Reasons[i].N++
}
