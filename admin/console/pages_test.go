package console

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
	"postern/relay/status"
	"postern/relay/store"
	"postern/relay/trace"
)

// hostile is what somebody may write into a reply, an EHLO name, a login or a subject.
const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}` + "\x1b[31m\x00\u202e\u2028"

// poison writes hostile text into every string under v.
func poison(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				poison(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 && v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			poison(v.Index(i))
		}
	}
}

// TestHostileText: whatever stands in any field comes out as text, printable and without markup.
func TestHostileText(t *testing.T) {
	r := newRig(t)
	r.healthy()
	poison(reflect.ValueOf(r.report).Elem())
	r.report.Phase, r.report.Upstreams[0].Identities[0].Since = status.Serving, r.now
	for n, held := range []bool{true, false} {
		m := r.message(n, time.Hour)
		id := m.ID
		poison(reflect.ValueOf(m).Elem())
		m.ID, m.LeaseOwner, m.Held, m.Received = id, "", held, r.now.Add(-time.Hour)
		m.Recipients[0].Status = queue.Pending
		if !held {
			m.WaitingFor = hostile
		}
		r.add(m)
	}
	for i, k := range append([]trace.Kind{trace.Kind(hostile)}, trace.Kinds...) {
		e := trace.Event{}
		poison(reflect.ValueOf(&e).Elem())
		e.Time, e.Kind, e.Reply.Code, e.ID = r.now.Add(-time.Duration(i)*time.Second), k, 550, fmt.Sprint("e", i)
		if k.IsRefusal() {
			e.ID = ""
		}
		r.tell(e)
	}
	q := url.QueryEscape(hostile)
	for _, path := range []string{"/", "/messages", "/queue", "/held", "/messages?q=" + q, "/messages?after=" + q,
		"/queue?to=" + q + "&from=" + q + "&login=" + q, "/queue?after=" + q, "/held?login=" + q,
		"/messages/3m5x0g9k2a000000", "/messages/3m5x0g9k2a000001", "/messages/e0", "/messages/e4",
		"/messages/" + url.PathEscape(hostile), "/" + url.PathEscape(hostile)} {
		for _, language := range []string{"en", "de"} {
			body := r.ask(person(operate.Admin), "GET", path, nil, in(language)).Body.String()
			harmless(t, path, body)
		}
	}
	w := r.ask(person(operate.Admin), "POST", "/queue/delete", url.Values{"all": {"1"}, "back": {hostile}})
	harmless(t, "confirmation", w.Body.String())
}

// harmless fails for markup, and for what is not printable, but in hidden fields, which go back as they came.
func harmless(t *testing.T, what, body string) {
	t.Helper()
	body = hiddenField.ReplaceAllString(body, "")
	for _, bad := range []string{"<script>alert", "<img src=x", "\x1b", "\x00", "\u202e"} {
		if i := strings.Index(body, bad); i >= 0 {
			t.Errorf("%s: has %q: %s", what, bad, body[max(0, i-200):min(len(body), i+100)])
		}
	}
	if !strings.Contains(body, "</html>") {
		t.Errorf("%s is not whole: %s", what, body)
	}
}

// TestRowsOfEachPage: none, one, and more than a page has.
func TestRowsOfEachPage(t *testing.T) {
	for _, n := range []int{0, 1, 250} {
		r := newRig(t)
		r.healthy()
		if n > 0 {
			r.fill(n)
		}
		rows := regexp.MustCompile(`(?s)<tbody.*?</tbody>`)
		for path, most := range map[string]int{"/queue": queueList, "/held": queueList, "/messages": foundOn} {
			body := r.page(path)
			tables := rows.FindAllString(body, -1)
			got := 0
			for _, table := range tables {
				if strings.Contains(table, `role="rowgroup"`) {
					got += strings.Count(table, "<tr ")
				}
			}
			switch next := strings.Contains(body, `rel="next"`); {
			case n == 0 && (got != 0 || next || !strings.Contains(body, `class="empty"`)):
				t.Errorf("%s with no row: %d rows, next %v", path, got, next)
			case n == 1 && (got < 1 || next):
				t.Errorf("%s with one row: %d rows, next %v", path, got, next)
			case n > 1 && path != "/held" && (got != most || !next):
				t.Errorf("%s with many: %d rows, next %v", path, got, next)
			}
		}
	}
}

var nextLink = regexp.MustCompile(`href="([^"]+)" rel="next"`)

// TestPaging: going on through the queue shows every message once.
func TestPaging(t *testing.T) {
	r := newRig(t)
	r.fill(250)
	seen, path := map[string]int{}, "/queue?login=anna"
	ids := regexp.MustCompile(`name="id" value="([^"]+)"`)
	for pages := 0; path != "" && pages < 10; pages++ {
		body := r.page(path)
		for _, id := range ids.FindAllStringSubmatch(body, -1) {
			seen[id[1]]++
		}
		path = ""
		if next := nextLink.FindStringSubmatch(body); next != nil {
			path = html.UnescapeString(next[1])
		}
	}
	if len(seen) != 83 { // every third of 250
		t.Errorf("%d messages were shown, want 83", len(seen))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was shown %d times", id, n)
		}
	}
}

// TestRolesAndActions: who may press which button, and what a request without the right gets.
func TestRolesAndActions(t *testing.T) {
	for verb, least := range map[string]operate.Role{"retry": operate.Helpdesk, "release": operate.Helpdesk,
		"hold": operate.Operator, "bounce": operate.Operator, "delete": operate.Operator} {
		for role := operate.Nobody; role <= operate.Admin; role++ {
			r := newRig(t)
			r.add(r.message(1, time.Hour), r.message(2, time.Hour))
			path, form := "/queue/"+verb, url.Values{"all": {"1"}, "confirmed": {"yes"}, "back": {"/queue?to=x"}}
			w := r.ask(person(role), "POST", path, form)
			want := http.StatusForbidden
			if role >= least {
				want = http.StatusSeeOther
			}
			if w.Code != want {
				t.Errorf("%s as %s: %d, want %d: %s", verb, role, w.Code, want, w.Body)
			}
			if want == http.StatusSeeOther && w.Header().Get("Location") != "/queue?to=x" {
				t.Errorf("%s leads to %s", verb, w.Header().Get("Location"))
			}
			if role >= operate.Viewer {
				shown := strings.Contains(r.page2(role, "/queue"), `formaction="`+path+`"`)
				if verb != "delete" && shown != (role >= least) { // after delete there is nothing to press
					t.Errorf("the button %s is shown to %s: %v", verb, role, shown)
				}
			}
		}
	}
	r := newRig(t)
	if w := r.ask(nil, "POST", "/queue/delete", url.Values{"all": {"1"}, "confirmed": {"yes"}}); w.Code !=
		http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login?") {
		t.Errorf("nobody: %d %s", w.Code, w.Header().Get("Location"))
	}
	if w := r.ask(person(operate.Admin), "GET", "/queue/delete", nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET of an action: %d", w.Code)
	}
}

// page2 gets a page as somebody with a role.
func (r *rig) page2(role operate.Role, path string) string {
	r.t.Helper()
	return r.ask(person(role), "GET", path, nil).Body.String()
}

// count is how many messages there are, and how many of them are held.
func (r *rig) count() (all, held int64) {
	r.t.Helper()
	stats, err := r.store.Stats(r.t.Context())
	r.must(err)
	return stats.Messages, stats.Held
}

// TestActions: a confirmation with the count comes first and does nothing; then the effect is in the store, and a
// notice says so once.
func TestActions(t *testing.T) {
	for name, test := range map[string]struct {
		verb      string
		form      url.Values
		question  string
		notice    string
		all, held int64 // afterwards, of 6 and 2
	}{
		"delete some": {"delete", url.Values{"id": {id(0), id(1), id(1), ""}}, "Delete 2 messages?",
			"2 messages are deleted.", 4, 1},
		"delete all": {"delete", url.Values{"all": {"1"}}, "Delete 6 messages?", "6 messages are deleted.", 0, 0},
		"delete by recipient": {"delete", url.Values{"all": {"1"}, "to": {"gmail.com"}}, "Delete 6 messages?",
			"6 messages are deleted.", 0, 0},
		"hold one": {"hold", url.Values{"id": {id(1)}}, "Hold 1 message?", "1 message is held.", 6, 3},
		"release all": {"release", url.Values{"all": {"1"}, "held": {"1"}}, "Release 2 messages?",
			"2 messages are released.", 6, 0},
		"retry several": {"retry", url.Values{"id": {id(1), id(2)}}, "Try 2 messages now?",
			"2 messages are tried now.", 6, 2},
		"bounce one": {"bounce", url.Values{"id": {id(1)}}, "Return 1 message to its sender?",
			"1 message is being returned to its sender.", 6, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for n := range 6 {
				m := r.message(n, time.Hour)
				m.Held = n == 0 || n == 3
				r.add(m)
			}
			test.form.Set("back", "/queue")
			w := r.ask(person(operate.Operator), "POST", "/queue/"+test.verb, test.form)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), test.question) {
				t.Fatalf("%d, want %q in %s", w.Code, test.question, w.Body)
			}
			if all, held := r.count(); all != 6 || held != 2 {
				t.Fatalf("the confirmation did something: %d, %d held", all, held)
			}
			late := r.message(9, 0) // came between question and answer
			late.Held = true
			r.add(late)
			w = r.ask(person(operate.Operator), "POST", "/queue/"+test.verb, hidden(w.Body.String()))
			if all, held := r.count(); w.Code != http.StatusSeeOther || all != test.all+1 || held != test.held+1 {
				t.Errorf("%d: %d messages, %d held, want %d and %d", w.Code, all, held, test.all+1, test.held+1)
			}
			cookie := w.Result().Cookies()[0]
			if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
				t.Errorf("%+v", cookie)
			}
			w = r.ask(person(operate.Operator), "GET", "/queue", nil, field1("Cookie", cookie.Name+"="+cookie.Value))
			if !strings.Contains(w.Body.String(), test.notice) || w.Result().Cookies()[0].MaxAge >= 0 {
				t.Errorf("no notice %q, or it stays", test.notice)
			}
		})
	}
}

func id(n int) string { return fmt.Sprintf("3m5x0g9k2a%06d", n) }

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// hidden is the form of a confirmation.
func hidden(body string) url.Values {
	form := url.Values{}
	for _, f := range hiddenField.FindAllStringSubmatch(body, -1) {
		form.Add(f[1], html.UnescapeString(f[2]))
	}
	return form
}

// TestOneRetryNeedsNoConfirmation: it does no harm. Holding does, and gets a reason.
func TestOneRetryNeedsNoConfirmation(t *testing.T) {
	r := newRig(t)
	r.add(r.message(1, time.Hour))
	form := url.Values{"id": {id(1)}, "back": {"//evil.example"}}
	w := r.ask(person(operate.Helpdesk), "POST", "/queue/retry", form)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Errorf("%d, leads to %s", w.Code, w.Header().Get("Location"))
	}
	m, err := r.store.Get(t.Context(), id(1))
	if r.must(err); m.NextAttempt.After(time.Now()) {
		t.Error("it is not due")
	}
	form.Set("confirmed", "yes")
	r.ask(person(operate.Operator), "POST", "/queue/hold", form)
	if m, err = r.store.Get(t.Context(), id(1)); err != nil || m.HoldReason != "by anna" {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestNoticesAreOurs: a forged notice shows nothing that is not in the catalogue.
func TestNoticesAreOurs(t *testing.T) {
	r := newRig(t)
	for _, value := range []string{"eyJrZXkiOiJDYWxsIDEyMyJ9", "x", "", strings.Repeat("A",
		9000)} { // {"key":"Call 123"}
		body := r.ask(person(operate.Viewer), "GET", "/", nil, field1("Cookie", noticeCookie+"="+value)).Body.String()
		if strings.Contains(body, "Call 123") || strings.Contains(body, `class="notice"`) {
			t.Errorf("%.20s is shown", value)
		}
	}
}

// TestVerdicts: the sentence on top.
func TestVerdicts(t *testing.T) {
	for want, change := range map[string]func(*status.Report){
		"Mail can leave.":                                func(*status.Report) {},
		"No mail can leave: Postern does not run.":       func(r *status.Report) { r.Running = false },
		"Postern is starting. Mail cannot be taken yet.": func(r *status.Report) { r.Phase = status.Starting },
		"No mail can leave. New mail is accepted and waits.": func(r *status.Report) {
			r.Upstreams[0].State = status.Paused
		},
		"No new mail is taken. What waits can leave.": func(r *status.Report) { r.Disk.Refuses = true },
		"No mail can leave, and no new mail is taken.": func(r *status.Report) {
			r.Disk.Refuses, r.Upstreams[0].State = true, status.Unreachable
		},
		"Mail can leave, but not all of it.": func(r *status.Report) { r.Upstreams[0].State = status.Partly },
	} {
		r := newRig(t)
		r.healthy()
		change(r.report)
		if body := r.page("/"); !strings.Contains(body, "<h1>"+want+"</h1>") {
			t.Errorf("want %q in %s", want, body)
		}
	}
}

// TestWhatALoginMetIsGerman: what an event of a login says of us is German there; a reply stays as it was.
func TestWhatALoginMetIsGerman(t *testing.T) {
	r := newRig(t)
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com"}))
	r.tell(trace.Event{Time: r.now.Add(-time.Hour), Kind: trace.AuthFail, Session: "s1", Login: "anna@example.com",
		Client: "192.0.2.1", Reply: mail.R(535, "5.7.8", "login or password not accepted")},
		trace.Event{Time: r.now.Add(-time.Minute), Kind: trace.Failed, ID: "m1", Login: "anna@example.com",
			Detail: "failure report 4711 queued"})
	const german, reply = `<span>Fehlerbericht 4711 in der Warteschlange</span>`,
		`<span lang="en">535 5.7.8 login or password not accepted</span>`
	login, list := r.page("/logins/anna@example.com", in("de")), r.page("/logins", in("de"))
	if strings.Count(login, german) != 2 || strings.Count(login, reply) != 1 || !strings.Contains(list, german) {
		t.Errorf("%s\n%s", login, list)
	}
}

// TestSearch: what may be typed into the box.
func TestSearch(t *testing.T) {
	r := newRig(t)
	r.tell(trace.Event{Time: r.now.Add(-3 * time.Minute), Kind: trace.Accepted, ID: "m1", Session: "s1",
		Client: "192.0.2.1",
		Login:  "anna", From: "anna@example.com", To: "ben@gmail.com", MessageID: "<77@example.com>"},
		trace.Event{Time: r.now.Add(-2 * time.Minute), Kind: trace.Delivered, ID: "m1", Login: "anna",
			From: "anna@example.com",
			To:   "ben@gmail.com", Upstream: "google", Reply: mail.R(250, "2.0.0", "OK gsmtp-4711")},
		trace.Event{Time: r.now.Add(-time.Minute), Kind: trace.AuthFail, Session: "s2", Client: "203.0.113.9",
			Login: "root",
			Reply: mail.R(535, "5.7.8", "login or password not accepted")},
		trace.Event{Time: r.now.Add(-48 * time.Hour), Kind: trace.Accepted, ID: "m0", Login: "anna",
			From: "anna@example.com"})
	for q, want := range map[string][]string{
		"": {"s2", "m1"}, "anna@example.com": {"m1"}, "gmail.com": {"m1"}, "anna": {"m1"}, "root": {"s2"}, "m1": {"m1"},
		"<77@example.com>": {"m1"}, "77@example.com": {"m1"}, "gsmtp-4711": {"m1"}, "not accepted": {"s2"},
		"nobody":      nil,
		"&span=all":   {"s2", "m1", "m0"},
		"&about=mail": {"m1"}, "root&about=mail": nil, "&about=refusals": {"s2"}, "&about=changes": nil,
	} {
		words, more, _ := strings.Cut(q, "&")
		if !strings.Contains(more, "about=") {
			more += "&about=all"
		}
		body := r.page("/messages?q=" + url.QueryEscape(words) + "&" + more)
		var got []string
		rows := regexp.MustCompile(`<a class="whole" href="/messages/([^"?]+)`)
		for _, m := range rows.FindAllStringSubmatch(body, -1) {
			got = append(got, m[1])
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	for q, want := range map[string]string{ // mail alone, unless more is asked for; and the way back to what was asked
		"/messages":                     `<option value="mail" selected>`,
		"/messages?q=root":              `href="/messages?about=all&amp;q=root"`,
		"/messages?q=gmail.com&span=7d": `href="/messages/m1?q=gmail.com&amp;span=7d"`,
		"/messages/m1?q=gmail.com&x=y":  `<a href="/messages?q=gmail.com">Back to my search</a>`,
	} {
		if body := r.page(q); !strings.Contains(body, want) {
			t.Errorf("%s lacks %s", q, want)
		}
	}
	body := r.page("/messages/m1")
	for _, want := range []string{"Handed over: google has taken it.", "250 2.0.0 OK gsmtp-4711", "192.0.2.1"} {
		if !strings.Contains(body, want) {
			t.Errorf("the timeline lacks %q", want)
		}
	}
	if w := r.ask(person(operate.Viewer), "GET", "/messages/none", nil); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}

// TestFailedRecipientsAgain: the button is there where somebody failed and others still wait, and does what it says.
func TestFailedRecipientsAgain(t *testing.T) {
	r := newRig(t)
	whole, partly := r.message(1, time.Hour), r.message(2, time.Hour)
	gone := partly.Recipients[0]
	gone.To, gone.Status = address("carl", "gmail.com"), queue.Failed
	partly.Recipients = append(partly.Recipients, gone)
	r.add(whole, partly)
	const button = `formaction="/queue/resend"`
	if strings.Contains(r.page("/messages/"+id(1)), button) || !strings.Contains(r.page("/messages/"+id(2)), button) {
		t.Error("the button is on the wrong page")
	}
	w := r.ask(person(operate.Operator), "POST", "/queue/resend", url.Values{"id": {id(2)}, "back": {"/queue"}})
	m, err := r.store.Get(t.Context(), id(2))
	if r.must(err); w.Code != http.StatusSeeOther || m.Recipients[1].Status != queue.Pending {
		t.Errorf("%d, %+v", w.Code, m.Recipients)
	}
}

// TestReading: the header and the message itself, each for who may, the message only with the second factor; both
// leave a record.
func TestReading(t *testing.T) {
	r := newRig(t)
	m := r.message(1, time.Hour)
	content := "Received: from [10.0.0.7] by relay.example.com (Postern); with ESMTPSA;\r\n" +
		"\tSun, 29 Nov 2026 03:00:00 +0000 (UTC)\r\nReceived: by <b>; never\r\n" +
		"Date: Sun, 29 Nov 2026 01:30:00 -0130\r\n" +
		"Subject: <script>alert(1)</script>\r\n\tand \x1b[31m more\r\nX: y\r\n\r\nBody <img src=x>\r\n"
	r.must(r.store.Add(t.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent(content)}))
	strong := person(operate.Admin)
	strong.Strong = true
	form := url.Values{"id": {id(1)}}
	for _, test := range []struct {
		who    *operate.Actor
		path   string
		status int
		says   string
	}{
		{person(operate.Viewer), "/queue/header", http.StatusForbidden, ""},
		{person(operate.Helpdesk), "/queue/header", http.StatusOK,
			"Subject: &lt;script&gt;alert(1)&lt;/script&gt;\n and ?[31m more\nX: y</pre>"},
		{person(operate.Operator), "/queue/raw", http.StatusForbidden, ""},
		{person(operate.Admin), "/queue/raw", http.StatusSeeOther, "/again?next=%2F"},
		{strong, "/queue/raw", http.StatusOK, content},
	} {
		w := r.ask(test.who, "POST", test.path, form)
		if said := w.Header().Get("Location") + w.Body.String(); w.Code != test.status ||
			!strings.Contains(said, test.says) {
			t.Errorf("%s as %s: %d %q", test.path, test.who.Role, w.Code, said)
		}
		if test.says == content && (w.Header().Get("Content-Type") != "message/rfc822" ||
			!strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") ||
			!strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox")) {
			t.Errorf("%v", w.Header())
		}
	}
	header := r.ask(person(operate.Admin), "POST", "/queue/header", form).Body.String()
	local := time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC).Local().Format("Mon 2 Jan 2006 15:04:05 MST")
	for _, field := range []string{"Received by relay.example.com", "Date"} {
		if want := "<dt>" + field + "</dt><dd>" + local + "</dd>"; !strings.Contains(header, want) {
			t.Errorf("the page lacks %s:\n%s", want, header)
		}
	}
	if n := strings.Count(header, "<dt>"); n != 2 {
		t.Errorf("%d times", n)
	}
	records, err := r.store.Audit(t.Context(), store.AuditQuery{})
	if r.must(err); len(records) < 2 {
		t.Errorf("the audit has %+v", records)
	}
	for path, role := range map[string]operate.Role{"/queue/header": operate.Helpdesk, "/queue/raw": operate.Admin} {
		for each := operate.Viewer; each <= operate.Admin; each++ {
			if shown := strings.Contains(r.page2(each, "/messages/"+id(1)), path); shown != (each >= role) {
				t.Errorf("%s is offered to %s: %v", path, each, shown)
			}
		}
	}
}
