package console

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
)

// queuePage shows what waits, and steers it.
var queuePage = page{path: "/queue", title: "Queue", menu: true, needs: operate.SeeQueue, sheet: "queue",
	show: showQueue, actions: []action{
		{path: "/queue/retry", needs: operate.RetryMessages, do: act(retrying), sheet: "confirm", title: "Queue"},
		{path: "/queue/hold", needs: operate.HoldMessages, do: act(holding), sheet: "confirm", title: "Queue"},
		{path: "/queue/release", needs: operate.ReleaseMessages, do: act(releasing), sheet: "confirm", title: "Queue"},
		{path: "/queue/resend", needs: operate.ResendMessages, do: act(resending), sheet: "confirm", title: "Queue"},
		{path: "/queue/bounce", needs: operate.BounceMessages, do: act(bouncing), sheet: "confirm", title: "Queue"},
		{path: "/queue/delete", needs: operate.DeleteMessages, do: act(deleting), sheet: "confirm", title: "Queue"},
	}}

// queueView is the body of the page.
type queueView struct {
	Filter  queue.Filter
	Any     bool // a filter is set
	Rows    []messageRow
	Pager   pager
	Buttons []button
	Shapes  []shapeTable
	Shape   operate.Shape
	Here    string
}

// messageRow is a message of the queue.
type messageRow struct {
	*queue.Message
	From, To string
	More     int // recipients beside To
	Icon     string
	State    string
	Next     time.Time // attempt; zero where none is planned
	Sleeping bool      // Next is when it is looked at again at the latest
	Reason   string    // why it is held
	Reply    string
}

// button is an action that may be done to a selection.
type button struct {
	Path, Label string
	Danger      bool
}

// queueList is how many messages of the queue a page lists.
const queueList = 100

// filterOf reads the filter of a page or form.
func filterOf(q url.Values) queue.Filter {
	get := func(name string) string { return strings.TrimSpace(mail.Cut(q.Get(name), maxFilter)) }
	f := queue.Filter{Login: get("login"), From: get("from"), To: get("to"), Held: q.Get("held") == "1"}
	for _, pattern := range []*string{&f.From, &f.To} { // people type a domain
		if *pattern != "" && !strings.Contains(*pattern, "@") {
			*pattern = "*@" + *pattern
		}
	}
	return f
}

// maxFilter bounds a value of a filter, in octets.
const maxFilter = 320

// fields are a filter as hidden fields of a form.
func fields(f queue.Filter) (all []field) {
	for _, each := range []field{{"login", f.Login}, {"from", f.From}, {"to", f.To}} {
		if each.Value != "" {
			all = append(all, each)
		}
	}
	if f.Held {
		all = append(all, field{"held", "1"})
	}
	return all
}

func showQueue(v *visit) (any, error) {
	q := v.URL.Query()
	f := filterOf(q)
	view := queueView{Filter: f, Any: f.Login+f.From+f.To != "" || f.Held, Here: v.here(),
		Buttons: buttonsOf(v, &retrying, &holding, &releasing, &bouncing, &deleting)}
	messages, next, err := listQueue(v, f, q.Get("after"))
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		view.Rows = append(view.Rows, rowOf(v, m))
	}
	view.Pager = v.paged("after", next)
	if view.Shape, err = v.shape(); err != nil {
		return nil, err
	}
	view.Shapes = []shapeTable{shapeTableOf(v, v.t("By provider"), v.t("Provider"), view.Shape.Upstreams, ""),
		shapeTableOf(v, v.t("By domain of the recipients"), v.t("Domain"), view.Shape.Domains, "/queue?to=")}
	return view, nil
}

// listQueue returns a page of the queue, and where the next begins.
func listQueue(v *visit, f queue.Filter, after string) (messages []*queue.Message, next string, err error) {
	f.After, f.Limit = after, queueList+1
	messages, err = v.console.Operations.Queue.List(v.Context(), v.actor, f)
	if len(messages) > queueList {
		messages = messages[:queueList]
		next = messages[queueList-1].ID
	}
	return messages, next, err
}

// rowOf says what a message waits for.
func rowOf(v *visit, m *queue.Message) messageRow {
	r := messageRow{Message: m, From: shown(m.Envelope.From), Reply: plain(400, m.LastReply.String())}
	for i := range m.Recipients {
		switch {
		case m.Recipients[i].Status != queue.Pending:
		case r.To == "":
			r.To = shown(m.Recipients[i].To)
		default:
			r.More++
		}
	}
	switch operate.StateOf(m, v.now) {
	case operate.IsHeld:
		r.Icon, r.State, r.Reason = "hold", v.t("held"), heldByOf(v, m.Login, m.HoldReason).Text
	case operate.IsReturned:
		r.Icon, r.State = "out", v.t("being returned")
	case operate.IsTried:
		r.Icon, r.State = "out", v.t("attempt %d under way", m.Attempts)
	case operate.Sleeps:
		r.Icon, r.State, r.Next, r.Sleeping = "wait", v.t("waits for %s", plain(80, m.WaitingFor)), m.NextAttempt, true
	default:
		r.Icon, r.State, r.Next = "wait", v.t("attempt %d", m.Attempts+1), m.NextAttempt
	}
	return r
}

// shown is an address; that of reports is <>.
func shown(a mail.Address) string {
	if s := a.String(); s != "" {
		return plain(200, s)
	}
	return "<>"
}

// shapeTable is how old what waits is, as a table.
type shapeTable struct {
	Title, Of string
	Heads     []string
	Rows      []shapeRow
}

// shapeRow is a row of it.
type shapeRow struct {
	Name, Link string
	Total      int
	Cells      []shapeCell
}

// shapeCell is a number. Old messages stand out.
type shapeCell struct {
	N   int
	Old bool
}

// oldBin is the first of operate.ShapeBins that is old: an hour and more.
const oldBin = 5

func shapeTableOf(v *visit, title, of string, rows []operate.ShapeRow, link string) shapeTable {
	t := shapeTable{Title: title, Of: of}
	for _, end := range operate.ShapeBins {
		t.Heads = append(t.Heads, v.num(int(end.Minutes())))
	}
	t.Heads = append(t.Heads, v.num(int(operate.ShapeBins[len(operate.ShapeBins)-1].Minutes()))+"+")
	for _, r := range rows {
		row := shapeRow{Name: plain(120, r.Name), Total: r.Total}
		switch {
		case r.Rest:
			row.Name = v.t("all others")
		case r.Name == "":
			row.Name = v.t("not tried yet")
		case link != "":
			row.Link = link + url.QueryEscape("*@"+r.Name)
		}
		for i, n := range r.Bins {
			row.Cells = append(row.Cells, shapeCell{n, n > 0 && i >= oldBin})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// selection is what an action of the queue is about.
type selection struct {
	filter queue.Filter
	ids    []string
	more   bool // a filter selects more than maxSelected
}

// maxSelected is how many messages one action is about at most; batch how many of them at once.
const (
	maxSelected = 10_000
	batch       = 1000
)

// selectionOf reads a selection: messages by their IDs, or with "all" whatever a filter selects. A confirmed one of a
// filter ends with the message that was the last when it was counted, so that what came since is left alone.
func selectionOf(v *visit, upTo string) (s selection, err error) {
	s.filter = filterOf(v.PostForm)
	if v.PostForm.Get("all") == "" {
		s.ids = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(v.PostForm["id"]))),
			func(id string) bool { return id == "" || len(id) > 100 })
		if len(s.ids) > maxSelected {
			s.ids, s.more = s.ids[:maxSelected], true
		}
		return s, nil
	}
	err = s.all(v, upTo)
	return s, err
}

// all takes whatever the filter selects, up to a message.
func (s *selection) all(v *visit, upTo string) error {
	f := s.filter
	f.Limit = batch
	for {
		messages, err := v.console.Operations.Queue.List(v.Context(), v.actor, f)
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch {
			case upTo != "" && m.ID > upTo:
				return nil
			case len(s.ids) == maxSelected:
				s.more = true
				return nil
			}
			s.ids = append(s.ids, m.ID)
		}
		if len(messages) < batch {
			return nil
		}
		f.After = messages[batch-1].ID
	}
}

// samplesOf are the first of a selection.
func samplesOf(v *visit, ids []string) (all []sample, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	messages, err := v.console.Operations.Queue.List(v.Context(), v.actor,
		queue.Filter{IDs: ids[:min(len(ids), sampled)]})
	for _, m := range messages {
		r := rowOf(v, m)
		text := fmt.Sprintf("%s → %s", r.From, r.To)
		if r.More > 0 {
			text += " " + v.t("and %d more", r.More)
		}
		all = append(all, sample{m.ID, text})
	}
	return all, err
}
