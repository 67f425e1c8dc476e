package console

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/trace"
)

// messagesPage finds messages and refused sessions; timelinePage tells the story of one.
var (
	messagesPage = page{path: "/messages", title: "Messages", menu: true, needs: operate.SeeTrace, sheet: "messages",
		show: showMessages}
	timelinePage = page{path: "/messages/{name}", title: "Message", under: "/messages", needs: operate.SeeTrace,
		sheet: "timeline", show: showTimeline, actions: []action{showHeader, fetchRaw}}
)

// messagesView is the body of the list.
type messagesView struct {
	Words  string
	About  []choice
	Ranges []choice
	Rows   []foundRow
	Pager  pager
	Any    bool   // something was asked for
	Mail   bool   // it is about mail alone
	Wider  string // the same search among everything; "": it is that
	// Reached is how far back an empty page has looked, if there is more to look at; else zero.
	Reached time.Time
	Partial bool // old events are not in the index yet
}

// choice is one of a list to choose from.
type choice struct {
	Value, Label string
	Chosen       bool
}

// foundRow is a message, or a session that was refused.
type foundRow struct {
	trace.Found
	Icon, Word string
	Link       string
	Who        string
	Words      []Said // of the last reply or event
	Parts      string // what became of how many recipients, where it differs
}

// period is how far back a search goes.
type period struct {
	value string
	label key
	d     time.Duration // 0: to the beginning
}

// spans are the periods to choose from. The second is chosen unless another is.
var spans = []period{
	{"1h", "the last hour", time.Hour}, {"24h", "the last 24 hours", 24 * time.Hour}, {"7d", "the last 7 days",
		7 * 24 * time.Hour},
	{"30d", "the last 30 days", 30 * 24 * time.Hour}, {"all", "ever", 0},
}

// subjects are what a search may be about. The first is chosen unless another is.
var subjects = []struct {
	value string
	label key
	about trace.Subject
}{
	{"mail", "mail", trace.Mail}, {"refusals", "refused logins", trace.Refusals},
	{"changes", "changes of accounts", trace.Changes}, {"all", "everything", trace.Everything},
}

// Bounds of a search.
const (
	maxWords   = trace.MaxQuery // octets
	foundOn    = 100            // rows of a page
	maxSearch  = 3 * time.Second
	recipients = 100 // of a message that are counted, or listed
)

func showMessages(v *visit) (any, error) {
	q := v.URL.Query()
	view := messagesView{Words: strings.TrimSpace(mail.Cut(q.Get("q"), maxWords))}
	view.Any = view.Words != ""
	since, about := view.since(v, q.Get("span")), view.about(v, q)
	v.console.Operations.Trace.Await(v.Context())
	ctx, cancel := context.WithTimeout(v.Context(), maxSearch) // then the answer says where to go on
	defer cancel()
	answer, err := v.console.Operations.Trace.Search(ctx, v.actor, trace.Search{Words: view.Words, About: about,
		Since: since, Limit: foundOn, After: q.Get("after")}, func(reached time.Time) { view.Reached = reached })
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, f := range answer.Found {
		row := foundRowOf(v, f)
		if row.Link != "" {
			row.Link = with(row.Link, asked(q))
		}
		if view.Rows = append(view.Rows, row); f.ID != "" {
			ids = append(ids, f.ID)
		}
	}
	held, err := heldAmong(v, ids)
	if err != nil {
		return nil, err
	}
	for i := range view.Rows {
		if r := &view.Rows[i]; held[r.ID] {
			r.Icon, r.Word = "hold", v.t("held")
		}
	}
	view.Partial, view.Pager = answer.Partial, v.paged("after", answer.Next)
	if len(view.Rows) > 0 || answer.Next == "" {
		view.Reached = time.Time{}
	}
	return view, nil
}

// asked is what was asked of the list, to come back to it.
func asked(q url.Values) url.Values {
	kept := url.Values{}
	for _, name := range []string{"q", "about", "span", "after"} {
		if value := mail.Cut(q.Get(name), maxWords); value != "" {
			kept.Set(name, value)
		}
	}
	return kept
}

// about fills the subjects to choose from, and returns the chosen one.
func (view *messagesView) about(v *visit, q url.Values) trace.Subject {
	chosen := subjects[0]
	for _, s := range subjects {
		if s.value == q.Get("about") {
			chosen = s
		}
	}
	for _, s := range subjects {
		view.About = append(view.About, choice{s.value, v.t(s.label), s.value == chosen.value})
	}
	view.Mail = chosen.about == trace.Mail
	if chosen.about != trace.Everything {
		wider := asked(q)
		wider.Del("after")
		wider.Set("about", "all")
		view.Wider = with("/messages", wider)
	}
	return chosen.about
}

// since fills the periods to choose from, and returns when the chosen one begins.
func (view *messagesView) since(v *visit, wanted string) (since time.Time) {
	if !slices.ContainsFunc(spans, func(s period) bool { return s.value == wanted }) {
		wanted = spans[1].value
	}
	for _, s := range spans {
		view.Ranges = append(view.Ranges, choice{s.value, v.t(s.label), s.value == wanted})
		if s.value == wanted && s.d > 0 {
			since = v.now.Add(-s.d)
		}
	}
	return since
}

func foundRowOf(v *visit, f trace.Found) foundRow {
	r := foundRow{Found: f}
	r.Icon, r.Word = v.kind(f.State)
	switch {
	case f.ID != "":
		r.Link = "/messages/" + url.PathEscape(f.ID)
	case f.Session != "":
		r.Link = "/messages/" + url.PathEscape(f.Session)
	}
	r.Who = f.Login
	if r.Who == "" || f.State.IsRefusal() {
		r.Who = strings.TrimSpace(f.Login + " " + f.Client)
	}
	r.Words = v.answer(400, f.Reply, f.Detail)
	if f.Recipients > 1 && f.Delivered < f.Recipients {
		r.Parts = partsOf(v, &f)
	}
	return r
}

// answer is the reply of an event, as it was, or else what the event says; at most so many octets.
func (w *words) answer(n int, reply mail.Reply, detail string) []Said {
	if r := reply.String(); r != "" {
		return []Said{{plain(n, r), "en"}}
	}
	if detail == "" {
		return nil
	}
	return w.history(plain(n, detail))
}

// partsOf says what became of how many recipients.
func partsOf(v *visit, f *trace.Found) string {
	var parts []string
	for _, part := range []struct {
		n    int
		text key
	}{{f.Delivered, "%d handed over"}, {f.Deferred, "%d delayed"}, {f.Failed, "%d given up"}, {f.Unclear,
		"%d unclear"}} {
		if part.n > 0 {
			parts = append(parts, v.t(part.text, part.n))
		}
	}
	return strings.Join(parts, ", ")
}

// kind says what an event is: an icon and a word.
func (w *words) kind(k trace.Kind) (icon, word string) {
	switch k {
	case trace.Refused:
		return "bad", w.t("connection refused")
	case trace.AuthFail:
		return "bad", w.t("login refused")
	case trace.Rejected:
		return "bad", w.t("message refused")
	case trace.Accepted:
		return "in", w.t("accepted")
	case trace.Attempt:
		return "wait", w.t("attempt")
	case trace.Delivered:
		return "ok", w.t("handed over")
	case trace.Deferred:
		return "wait", w.t("delayed")
	case trace.Failed:
		return "bad", w.t("given up")
	case trace.Unclear:
		return "warn", w.t("unclear")
	case trace.Report:
		return "info", w.t("report")
	case trace.Operator:
		return "person", w.t("by hand")
	}
	return "info", plain(40, k)
}
