package console

import (
	"maps"
	"slices"
	"strings"
	"time"

	"postern/operate"
	"postern/relay/store"
)

// alertsPage shows what people were told of: what is open, and what is over.
var alertsPage = page{path: "/alerts", title: "Alerts", menu: true, needs: operate.SeeAlerts, sheet: "alerts",
	show: showAlerts, actions: []action{
		{path: "/alerts/act/test", needs: operate.TestAlerts, do: testAlerts, sheet: "alerttest",
			title: "Test alert"},
	}}

// alertsView is the body of the page.
type alertsView struct {
	Open     []alertView
	Past     []alertView
	Later    bool // a page of the past that is not the first
	Pager    pager
	MayTest  bool
	MoreOpen bool
}

// alertView is an alert in words.
type alertView struct {
	store.Alert
	ID      string // its place on the page, while it is open
	Title   string
	First   Said // sentence of the summary
	Rest    Said // of it
	Said    Said // all of it but what to do
	About   string
	Steps   []way
	Any     bool // one of them is enough
	Details []detail
}

// detail is a name and a value.
type detail struct{ Name, Value string }

// Bounds of the page.
const (
	openAlerts  = 100
	pastAlerts  = 50
	alertDetail = 20
)

func showAlerts(v *visit) (any, error) {
	view := &alertsView{MayTest: v.may(operate.TestAlerts)}
	list := func(q store.AlertQuery) ([]store.Alert, error) {
		return v.console.Operations.Alerts.List(v.Context(), v.actor, q)
	}
	after := v.URL.Query().Get("after")
	if view.Later = after != ""; !view.Later {
		open, err := list(store.AlertQuery{Open: true, Limit: openAlerts + 1})
		if err != nil {
			return nil, err
		}
		view.MoreOpen = len(open) > openAlerts
		view.Open = viewAlerts(v, open[:min(len(open), openAlerts)])
	}
	all, err := list(store.AlertQuery{After: after, Limit: pastAlerts + 1})
	if err != nil {
		return nil, err
	}
	next := ""
	if len(all) > pastAlerts {
		all = all[:pastAlerts]
		next = all[pastAlerts-1].Place()
	}
	past := slices.DeleteFunc(all, func(a store.Alert) bool { return a.Ended.IsZero() })
	view.Past, view.Pager = viewAlerts(v, past), v.paged("after", next)
	return view, nil
}

func viewAlerts(v *visit, list []store.Alert) (all []alertView) {
	for _, a := range list {
		view := alertView{Alert: a, ID: alertID(&a), Title: eventTitle(v, a.Event), About: about(&a)}
		view.First, view.Rest = firstSentence(v.said(plainLines(maxSaid, a.Summary)))
		view.todo(v)
		for _, name := range slices.Sorted(maps.Keys(a.Details)) {
			if len(view.Details) < alertDetail && a.Details[name] != "" && !slices.Contains(saidAlready, name) {
				view.Details = append(view.Details, detailOf(v, name, a.Details[name]))
			}
		}
		all = append(all, view)
	}
	return all
}

// saidAlready are the details that the summary has, too.
var saidAlready = []string{"cause", "fix", "what", "why", "code", "subject"}

// What an alert begins its advice with, in both languages.
const (
	adviceBegins = " What to do: "
	germanBegins = " Was zu tun ist: "
)

// todo sets what to do apart from what is wrong. Where the advice is of several lines, they are in the details.
func (a *alertView) todo(v *visit) {
	lines := strings.Split(a.Alert.Details["fix"], "\n")
	at := strings.LastIndex(a.Summary, adviceBegins)
	if at >= 0 && len(lines) > 1 {
		a.Said = v.said(plainLines(maxSaid, a.Summary[:at]))
		a.Steps, a.Any = waysIn(v, lines)
		return
	}
	a.Said = v.said(plainLines(maxSaid, a.Summary))
	for _, begins := range []string{adviceBegins, germanBegins} {
		if at := strings.LastIndex(a.Said.Text, begins); at >= 0 {
			advice := a.Said.Text[at+len(begins):]
			a.Steps = []way{{Said: Said{capital(advice), a.Said.Lang}}}
			a.Said.Text = a.Said.Text[:at]
		}
	}
}

// firstSentence cuts a text behind its first sentence. Within quotation marks none ends.
func firstSentence(s Said) (first, rest Said) {
	quoted := false
	for i := range s.Text {
		switch {
		case s.Text[i] == '"':
			quoted = !quoted
		case !quoted && s.Text[i] == '.' && i+1 < len(s.Text) && (s.Text[i+1] == ' ' || s.Text[i+1] == '\n'):
			return Said{s.Text[:i+1], s.Lang}, Said{s.Text[i+2:], s.Lang}
		}
	}
	return s, Said{Lang: s.Lang}
}

// Lasted is how long an alert that is over was open.
func (a alertView) Lasted() time.Duration { return a.Ended.Sub(a.Since) }

// eventTitle says what kind of alert it is.
func eventTitle(v *visit, name string) string {
	if k, ok := alertTitles[name]; ok {
		return v.t(k)
	}
	return plain(60, name)
}

var alertTitles = map[string]key{
	"upstream-paused": "A provider takes no mail", "login-locked": "Login locked", "queue-age": "Mail waits too long",
	"certificate-expiry": "Certificate ends soon", "secret-expiry": "Secret ends soon",
	"report-failed": "Report not delivered", "disk-full": "Disk full",
	"dkim-key": "DKIM key needs somebody", "login-source": "Source of logins is down", "danger": "Mail in danger",
}

// detailNames are what the details of alerts are called.
var detailNames = map[string]key{
	"upstream":  "Provider",
	"identity":  "Account there",
	"sender":    "Sender",
	"reply":     "Answer of the provider",
	"provider":  "Kind of provider",
	"login":     "Login",
	"client":    "Device's address",
	"file":      "File",
	"ends":      "Ends",
	"source":    "More about it",
	"domain":    "Domain",
	"oldest":    "Oldest message",
	"next_try":  "Next try",
	"id":        "Message",
	"messages":  "Messages",
	"since":     "Since",
	"until":     "Until",
	"to":        "To",
	"failures":  "Wrong passwords",
	"reason":    "Reason",
	"keys":      "Keys",
	"dir":       "Directory",
	"free":      "Free",
	"estimated": "Estimated",
	"held":      "Held",
	"queued":    "Waiting",
	"host":      "Host",
	"name":      "Name",
	"kept":      "Kept",
	"used_by":   "Used by",
}

// detailOf is a detail in words; a time as pages have it.
func detailOf(v *visit, name, value string) detail {
	d := detail{plain(60, name), plain(400, value)}
	if k, ok := detailNames[name]; ok {
		d.Name = v.t(k)
	}
	if at, err := time.Parse(time.RFC3339, value); err == nil {
		d.Value = v.whole(at)
	}
	return d
}

// about is what an alert is about; the doctor's code of what it found tells people nothing.
func about(a *store.Alert) string {
	if _, subject, ok := strings.Cut(a.Subject, ": "); ok && a.Event == "danger" {
		return subject
	}
	return a.Subject
}

// hookTest is what a hook said to a test.
type hookTest struct {
	Hook, Host, Problem string
}

// testAlerts posts a test to each hook.
func testAlerts(v *visit) (string, any, error) {
	bePatient(v, longestAction)
	tests, err := v.console.Operations.Alerts.Test(v.Context(), v.actor, 0)
	if kind, theirs := operate.KindOf(err); theirs && kind == operate.NotFound {
		return "", []hookTest{}, nil
	}
	if err != nil {
		return "", nil, err
	}
	list := []hookTest{}
	for _, t := range tests {
		h := hookTest{Hook: plain(40, t.Hook), Host: plain(120, t.Host)}
		if t.Err != nil {
			h.Problem = plain(400, t.Err)
		}
		list = append(list, h)
	}
	return "", list, nil
}
