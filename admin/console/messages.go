package console

import (
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
		sheet: "timeline", show: showTimeline}
)

// messagesView is the body of the list.
type messagesView struct {
	Words  string
	Ranges []choice
	Rows   []foundRow
	Pager  pager
	Any    bool // something was asked for
}

// choice is one of a list to choose from.
type choice struct {
	Value, Label string
	Chosen       bool
}

// foundRow is a message, or a session that was refused.
type foundRow struct {
	found
	Icon, Word string
	Link       string
	Who        string
	Words      string // of the last reply or event
}

// found is a message, or a session without one, by its last event.
type found struct {
	ID, Session  string
	Time         time.Time
	State        trace.Kind // of the last event that says what became of it
	Login        string
	Client       string
	From, To     string
	Recipients   int
	Reply        mail.Reply
	Detail       string
	Upstream     string
	recipientsOf map[string]bool
}

// spans are the periods of a search.
var spans = []struct {
	value string
	label key
	d     time.Duration
}{
	{"1h", "the last hour", time.Hour}, {"24h", "the last 24 hours", 24 * time.Hour}, {"7d", "the last 7 days",
		7 * 24 * time.Hour},
	{"30d", "the last 30 days", 30 * 24 * time.Hour}, {"all", "ever", 0},
}

// Bounds of a search.
const (
	maxWords   = 512  // octets
	maxEvents  = 1000 // of the trace, looked at for one page
	foundOn    = 100  // rows of a page
	maxOfOne   = 2000 // events of a timeline
	recipients = 100  // that are counted
)

func showMessages(v *visit) (any, error) {
	q := v.URL.Query()
	view := messagesView{Words: strings.TrimSpace(mail.Cut(q.Get("q"), maxWords))}
	view.Any = view.Words != ""
	span := q.Get("span")
	if !slices.ContainsFunc(spans, func(s struct {
		value string
		label key
		d     time.Duration
	}) bool {
		return s.value == span
	}) {
		span = "24h"
	}
	var since time.Time
	for _, s := range spans {
		view.Ranges = append(view.Ranges, choice{s.value, v.t(s.label), s.value == span})
		if s.value == span && s.d > 0 {
			since = v.now.Add(-s.d)
		}
	}
	all, next, err := search(v, view.Words, since, q.Get("after"))
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		view.Rows = append(view.Rows, foundRowOf(v, f))
	}
	view.Pager = v.paged("after", next)
	return view, nil
}

// search finds messages and refused sessions, the newest first, and where the next page begins.
func search(v *visit, words string, since time.Time, after string) (all []found, next string, err error) {
	v.console.Operations.Trace.Await(v.Context())
	var until time.Time
	if after != "" {
		if until, err = time.Parse(time.RFC3339Nano, after); err != nil {
			return nil, "", nil
		}
	}
	var events []trace.Event
	for _, q := range queries(words) {
		q.query.Since, q.query.Until, q.query.Limit = since, until, maxEvents
		some, err := v.console.Operations.Trace.Events(v.Context(), v.actor, q.query, q.name)
		if err != nil {
			return nil, "", err
		}
		events = append(events, some...)
	}
	slices.SortStableFunc(events, func(a, b trace.Event) int { return b.Time.Compare(a.Time) })
	all = grouped(events)
	if len(all) > foundOn {
		all = all[:foundOn]
	}
	if n := len(all); n == foundOn || len(events) >= maxEvents && n > 0 {
		next = all[n-1].Time.UTC().Format(time.RFC3339Nano)
	}
	return all, next, nil
}

// ask is one question to the trace.
type ask struct {
	query trace.Query
	name  string
}

// queries are what the words of the search box may mean.
func queries(words string) []ask {
	address := strings.Trim(words, "<>")
	switch {
	case words == "":
		return []ask{{}}
	case strings.HasPrefix(words, "<") && strings.Contains(words, "@"):
		return []ask{{name: words}}
	case strings.Contains(address, "@"):
		return []ask{{query: trace.Query{From: address}}, {query: trace.Query{To: address}},
			{query: trace.Query{Login: address}}, {name: address}}
	case strings.Contains(words, ".") && !strings.ContainsAny(words, " /:"):
		return []ask{{query: trace.Query{From: "*@" + words}}, {query: trace.Query{To: "*@" + words}},
			{query: trace.Query{Login: words}}, {query: trace.Query{Text: words}}}
	}
	return []ask{{name: words}, {query: trace.Query{Login: words}}, {query: trace.Query{Text: words}}}
}

// grouped makes rows of events, which are newest first: one for each message, for each session without one, and for
// each event of neither.
func grouped(events []trace.Event) (all []found) {
	places := map[string]int{}
	for i := range events {
		e := &events[i]
		k := e.ID
		if k == "" && e.Session != "" {
			k = "session " + e.Session
		}
		at, ok := places[k]
		if !ok || k == "" {
			at = len(all)
			places[k] = at
			all = append(all, found{ID: e.ID, Session: e.Session, Time: e.Time, recipientsOf: map[string]bool{}})
		}
		all[at].add(e)
	}
	return all
}

// add takes from an older event what newer ones do not say.
func (f *found) add(e *trace.Event) {
	told := e.Kind != trace.Report && e.Kind != trace.Operator
	if f.State == "" || told && (f.State == trace.Report || f.State == trace.Operator) {
		f.State, f.Reply, f.Detail, f.Upstream = e.Kind, e.Reply, e.Detail, e.Upstream
	}
	for _, each := range []struct {
		have *string
		more string
	}{{&f.Login, e.Login}, {&f.Client, e.Client}, {&f.From, e.From}, {&f.To, e.To}, {&f.Session, e.Session}} {
		if *each.have == "" {
			*each.have = each.more
		}
	}
	if e.To != "" && len(f.recipientsOf) < recipients {
		f.recipientsOf[e.To] = true
	}
	f.Recipients = len(f.recipientsOf)
}

func foundRowOf(v *visit, f found) foundRow {
	r := foundRow{found: f}
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
	r.Words = f.Reply.String()
	if r.Words == "" {
		r.Words = f.Detail
	}
	return r
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
		return "ok", w.t("delivered")
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
