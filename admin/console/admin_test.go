package console

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/doctor"
	"postern/relay/finding"
	"postern/relay/status"
	"postern/relay/store"
	"postern/relay/trace"
)

// TestRolesOfAdministration: who sees which page, and who may do what.
func TestRolesOfAdministration(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(4)
	for path, least := range map[string]operate.Role{"/logins": operate.Viewer, "/logins/scanner-00001": operate.Viewer,
		"/logins/add/login": operate.Operator, "/logins/add/device": operate.Operator,
		"/logins/add/table": operate.Operator,
		"/domains":          operate.Viewer, "/domains/example.com": operate.Viewer, "/alerts": operate.Viewer,
		"/doctor": operate.Viewer, "/settings": operate.Viewer, "/audit": operate.Operator} {
		r.pageNeeds(path, least)
		for role := operate.Nobody; role <= operate.Admin; role++ {
			menu := strings.Contains(r.page2(role, "/logins"), `href="`+path+`"`)
			if role >= operate.Viewer && strings.Count(path, "/") == 1 && menu != (role >= least) {
				t.Errorf("%s stands in the menu of %s: %v", path, role, menu)
			}
		}
	}
	login := url.Values{"login": {"scanner-00001"}, "who": {"scanner-00001"}, "domain": {"example.com"}}
	for path, least := range map[string]operate.Role{"/logins/act/unlock": operate.Operator,
		"/logins/act/lock": operate.Operator, "/logins/act/password": operate.Operator,
		"/logins/act/edit": operate.Operator,
		"/logins/act/add":  operate.Operator, "/logins/act/import": operate.Operator,
		"/logins/act/passwords": operate.Operator,
		"/logins/act/remove":    operate.Admin, "/domains/act/look": operate.Helpdesk,
		"/doctor/act/run":  operate.Helpdesk,
		"/alerts/act/test": operate.Operator, "/domains/act/key-add": operate.Admin,
		"/domains/act/key-rotate": operate.Admin,
		"/domains/act/key-check":  operate.Operator, "/domains/act/key-retire": operate.Admin,
		"/domains/act/key-remove": operate.Admin} {
		r.actionNeeds(path, least, login)
	}
	for _, button := range []string{"/logins/act/lock", "/logins/act/password", "/logins/act/edit",
		"/logins/act/remove"} {
		if strings.Contains(r.page2(operate.Helpdesk, "/logins/scanner-00001"), button) {
			t.Errorf("%s is shown to those who may not", button)
		}
	}
}

// pageNeeds checks who may see a page.
func (r *rig) pageNeeds(path string, least operate.Role) {
	r.t.Helper()
	for role := operate.Nobody; role <= operate.Admin; role++ {
		want := http.StatusForbidden
		if role >= least {
			want = http.StatusOK
		}
		if w := r.ask(person(role), "GET", path, nil); w.Code != want {
			r.t.Errorf("%s as %s: %d, want %d", path, role, w.Code, want)
		}
	}
}

// actionNeeds checks that nobody below a role may do an action, nor another site, and that it is no page.
func (r *rig) actionNeeds(path string, least operate.Role, form url.Values) {
	r.t.Helper()
	for role := operate.Nobody; role < least; role++ {
		if w := r.ask(person(role), "POST", path, form); w.Code != http.StatusForbidden {
			r.t.Errorf("%s as %s: %d", path, role, w.Code)
		}
	}
	if w := r.ask(nil, "POST", path, form); !strings.HasPrefix(w.Header().Get("Location"), "/login?") {
		r.t.Errorf("%s as nobody: %d %s", path, w.Code, w.Header().Get("Location"))
	}
	if w := r.ask(person(operate.Admin), "GET", path, nil); w.Code != http.StatusMethodNotAllowed {
		r.t.Errorf("GET %s: %d", path, w.Code)
	}
	w := r.ask(person(operate.Admin), "POST", path, form, field1("Sec-Fetch-Site", "cross-site"))
	if w.Code != http.StatusForbidden {
		r.t.Errorf("%s from another site: %d", path, w.Code)
	}
}

// strong is an admin who has just given the second factor.
func strong() *operate.Actor {
	who := person(operate.Admin)
	who.Strong = true
	return who
}

// confirmedBy does an action and its confirmation.
func (r *rig) confirmedBy(who *operate.Actor, path string, form url.Values) (question string, location string) {
	r.t.Helper()
	w := r.ask(who, "POST", path, form)
	if w.Code != http.StatusOK {
		r.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	question = w.Body.String()
	w = r.ask(who, "POST", path, hidden(question))
	return question, w.Header().Get("Location")
}

func TestLockUnlockRemove(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(4)
	form := url.Values{"login": {"scanner-00001"}}
	question, next := r.confirmedBy(person(operate.Operator), "/logins/act/lock", form)
	u, err := r.store.User(t.Context(), "scanner-00001")
	if r.must(err); !u.Locked || u.LockReason != "by anna" || next != "/logins/scanner-00001" ||
		!strings.Contains(question, "Lock scanner-00001?") {
		t.Errorf("%+v, leads to %s", u, next)
	}
	if body := r.page("/logins?kind=locked"); !strings.Contains(body, "scanner-00001") || strings.Contains(body,
		"person00000") {
		t.Error("the filter does not choose those that are locked")
	}
	w := r.ask(person(operate.Operator), "POST", "/logins/act/unlock", url.Values{"who": {"scanner-00001"},
		"back": {"//x"}})
	if u, err = r.store.User(t.Context(), "scanner-00001"); err != nil || u.Locked ||
		w.Header().Get("Location") != "/" {
		t.Errorf("%+v, %v, leads to %s", u, err, w.Header().Get("Location"))
	}
	w = r.ask(person(operate.Admin), "POST", "/logins/act/remove", form, field1("Referer",
		"http://example.com/logins/scanner-00001"))
	if w.Header().Get("Location") != "/again?next=%2Flogins%2Fscanner-00001" {
		t.Errorf("the second factor is not asked for: %d %s", w.Code, w.Header().Get("Location"))
	}
	if _, next = r.confirmedBy(strong(), "/logins/act/remove", form); next != "/logins" {
		t.Errorf("leads to %s", next)
	}
	if w := r.ask(person(operate.Viewer), "GET", "/logins/scanner-00001", nil); w.Code != http.StatusNotFound {
		t.Errorf("it is still there: %d", w.Code)
	}
	if w := r.ask(strong(), "POST", "/logins/act/lock", url.Values{"login": {"nobody"},
		"confirmed": {"yes"}}); w.Code !=
		http.StatusNotFound {
		t.Errorf("unknown login: %d", w.Code)
	}
}

// TestLockedAddresses: an address that guesses passwords is listed, and can be let in again.
func TestLockedAddresses(t *testing.T) {
	r := newRig(t, office(t))
	r.lockOut("203.0.113.9/32")
	if body := r.page("/logins"); !strings.Contains(body, "203.0.113.9") || !strings.Contains(body,
		`value="203.0.113.9"`) {
		t.Fatalf("it is not listed: %s", body)
	}
	w := r.ask(person(operate.Operator), "POST", "/logins/act/unlock", url.Values{"who": {"203.0.113.9"},
		"back": {"/logins"}})
	if w.Code != http.StatusSeeOther || strings.Contains(r.page("/logins"), "203.0.113.9") {
		t.Errorf("%d, it is still listed", w.Code)
	}
}

var secretField = regexp.MustCompile(`<span class="secret"[^>]*>([^<]+)</span>`)

// TestNewDevice: what was typed wrong comes back, and what is right becomes a card, shown once.
func TestNewDevice(t *testing.T) {
	r := newRig(t, office(t))
	form := url.Values{"device": {"1"}, "login": {"scanner-9"}, "senders": {"scans@example.com\r\n*@scans.example.com"},
		"networks": {"10.0.0.300"}, "note": {"Hall"}}
	body := r.ask(person(operate.Operator), "POST", "/logins/act/add", form).Body.String()
	for _, want := range []string{`role="alert"`, "10.0.0.300", `value="scanner-9"`, "*@scans.example.com</textarea>"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	form.Set("networks", "10.0.0.30; 10.9.0.0/16")
	w := r.ask(person(operate.Operator), "POST", "/logins/act/add", form)
	body = w.Body.String()
	secret := secretField.FindStringSubmatch(body)
	if secret == nil || w.Header().Get("Cache-Control") != "no-store" || len(w.Result().Cookies()) > 0 {
		t.Fatalf("no password, or it may be kept: %v %s", w.Header(), body)
	}
	for _, want := range []string{"relay.example.com", "<dd>587</dd>", "STARTTLS", "port 465, encryption SSL/TLS",
		"scans@example.com"} {
		if !strings.Contains(body, want) {
			t.Errorf("the card lacks %q", want)
		}
	}
	u, err := r.store.User(t.Context(), "scanner-9")
	if r.must(err); !u.Device || len(u.Networks) != 2 || len(u.Senders) != 2 || u.Note != "Hall" {
		t.Errorf("%+v", u)
	}
	if body = r.ask(person(operate.Operator), "POST", "/logins/act/add", form).Body.String(); !strings.Contains(body,
		"exists already") {
		t.Error("the same form adds it twice")
	}
	if strings.Contains(r.page("/logins/scanner-9")+r.log.String(), secret[1]) {
		t.Error("the password is shown again, or logged")
	}
}

// TestNewPasswordOnce: to load the answer again makes no other password.
func TestNewPasswordOnce(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(2)
	w := r.ask(person(operate.Operator), "POST", "/logins/act/password", url.Values{"login": {"scanner-00001"}})
	form := hidden(w.Body.String())
	w = r.ask(person(operate.Operator), "POST", "/logins/act/password", form)
	if secretField.FindString(w.Body.String()) == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	before, err := r.store.User(t.Context(), "scanner-00001")
	r.must(err)
	w = r.ask(person(operate.Operator), "POST", "/logins/act/password", form)
	after, err := r.store.User(t.Context(), "scanner-00001")
	if r.must(err); w.Code != http.StatusSeeOther || !reflect.DeepEqual(before, after) {
		t.Errorf("%d, it was changed twice", w.Code)
	}
}

func TestEditLogin(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(2)
	form := url.Values{"login": {"scanner-00001"}, "senders": {"new@example.com"}, "networks": {""}, "groups": {"a b"},
		"note": {"moved"}}
	body := r.ask(person(operate.Operator), "POST", "/logins/act/edit", form).Body.String()
	if !strings.Contains(body, `role="alert"`) || !strings.Contains(body, "new@example.com</textarea>") {
		t.Errorf("what was typed is gone: %s", body)
	}
	form.Set("groups", "one\ntwo")
	w := r.ask(person(operate.Operator), "POST", "/logins/act/edit", form)
	u, err := r.store.User(t.Context(), "scanner-00001")
	if r.must(err); w.Code != http.StatusSeeOther || len(u.Senders) != 1 || len(u.Networks) != 0 ||
		len(u.Groups) != 2 ||
		u.Note != "moved" {
		t.Errorf("%d %+v", w.Code, u)
	}
}

// TestImportTable: mistakes by line, a check that changes nothing, and passwords that can be fetched once.
func TestImportTable(t *testing.T) {
	r := newRig(t, office(t))
	who := person(operate.Operator)
	body := r.ask(who, "POST", "/logins/act/import",
		url.Values{"table": {"login,senders\nanna,a@example.com\nb b,x"}}).Body.String()
	if !strings.Contains(body, "3: login") || !strings.Contains(body, "anna,a@example.com") {
		t.Errorf("no mistake by line, or the table is gone: %s", body)
	}
	form := url.Values{"table": {"login,kind,senders\nanna,user,a@example.com\nscanner-1,device,s@example.com\n"},
		"check": {"1"}}
	body = r.ask(who, "POST", "/logins/act/import", form).Body.String()
	if users, err := r.store.Users(t.Context()); err != nil || len(users) > 0 || !strings.Contains(body,
		"It would add 2 and change 0") {
		t.Errorf("%v %v %s", users, err, body)
	}
	form.Del("check")
	body = r.ask(who, "POST", "/logins/act/import", form).Body.String()
	token := hidden(body)
	if users, _ := r.store.Users(t.Context()); len(users) != 2 || token.Get("token") == "" {
		t.Fatalf("%v %s", users, body)
	}
	other := person(operate.Admin)
	other.Name = "ben"
	if w := r.ask(other, "POST", "/logins/act/passwords", token); w.Code != http.StatusNotFound {
		t.Errorf("somebody else gets them: %d", w.Code)
	}
	w := r.ask(who, "POST", "/logins/act/passwords", token)
	if !strings.HasPrefix(w.Body.String(), "login,password\nanna,") || strings.Count(w.Body.String(), "\n") != 3 ||
		!strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment;") ||
		w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	if w := r.ask(who, "POST", "/logins/act/passwords", token); w.Code != http.StatusNotFound {
		t.Errorf("they are fetched twice: %d", w.Code)
	}
}

// full takes nothing.
type full struct{ Keepsakes }

func (full) Keep(context.Context, string, time.Time, time.Time, []byte) (string, error) {
	return "", errors.New("the store is full")
}

// TestPasswordsFromAnotherNode: what one node has made another hands out, once; where the store takes nothing, the node
// that made it does.
func TestPasswordsFromAnotherNode(t *testing.T) {
	for _, broken := range []bool{false, true} {
		var a, b *rig
		a = newRig(t, office(t), func(r *rig) {
			if r.keepsakes = r.store; broken {
				r.keepsakes = full{r.store}
			}
		})
		b = newRig(t, office(t), func(r *rig) { r.keepsakes = a.store })
		if broken {
			b = a
		}
		who := person(operate.Operator)
		token := hidden(a.ask(who, "POST", "/logins/act/import", url.Values{
			"table": {"login,kind,senders\nanna,user,a@example.com\n"}}).Body.String())
		w := b.ask(who, "POST", "/logins/act/passwords", token)
		if !strings.HasPrefix(w.Body.String(), "login,password\nanna,") ||
			!strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment;") ||
			w.Header().Get("Content-Type") != "text/csv; charset=utf-8" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		for _, r := range []*rig{a, b} {
			if w := r.ask(who, "POST", "/logins/act/passwords", token); w.Code != http.StatusNotFound {
				t.Errorf("they are fetched twice: %d", w.Code)
			}
		}
	}
}

func TestKeepsakes(t *testing.T) {
	var k keepsakes
	now := time.Unix(1_800_000_000, 0)
	file := attachment{name: "x", data: []byte("x")}
	old := k.keep("anna", now, file)
	if _, ok := k.take("anna", old, now.Add(keepsakeTime+1)); ok {
		t.Error("what is old is handed out")
	}
	var tokens []string
	for i := range maxKeepsakes + 1 {
		tokens = append(tokens, k.keep("anna", now.Add(time.Duration(i)), file))
	}
	if _, ok := k.take("anna", tokens[0], now); ok || len(k.all) != maxKeepsakes {
		t.Errorf("the oldest stays: %d are kept", len(k.all))
	}
	if _, ok := k.take("anna", tokens[1], now); !ok {
		t.Error("a newer one is gone")
	}
}

// TestManyLogins: 10 000 of them, shown once each, and found.
func TestManyLogins(t *testing.T) {
	r := newRig(t, office(t))
	const n = 10_000
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("user%05d", i)
	}
	r.must(r.store.ChangeUsers(t.Context(), users, func(u *auth.User, _ bool) error {
		u.Created, u.Changed = r.now, r.now
		return nil
	}))
	seen, path := map[string]int{}, "/logins?q=user000"
	link := regexp.MustCompile(`href="/logins/(user\d+)"`)
	for pages := 0; path != "" && pages < 5; pages++ {
		body := r.page(path)
		for _, m := range link.FindAllStringSubmatch(body, -1) {
			seen[m[1]]++
		}
		path = ""
		if next := nextLink.FindStringSubmatch(body); next != nil {
			path = html.UnescapeString(next[1])
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d logins were shown, want 100", len(seen))
	}
	if body := r.page("/logins"); strings.Count(body, "<tr ") != loginsOn+1 || !strings.Contains(body,
		"10,000 accounts") {
		t.Errorf("the first page has %d rows", strings.Count(body, "<tr "))
	}
}

// TestRowsOfAdministration: none, one, and more than a page has.
func TestRowsOfAdministration(t *testing.T) {
	for n, most := range map[int]map[string]int{0: {}, 1: {"/audit": 1}, 120: {"/audit": auditOn,
		"/alerts": pastAlerts, "/logins": loginsOn}} {
		r := newRig(t, office(t))
		r.accounts(n)
		r.alerts(n)
		r.audits(n)
		for _, path := range []string{"/audit", "/alerts", "/logins"} {
			body := r.page(path)
			rows := max(0, strings.Count(body, "<tr ")-1)
			next := strings.Contains(body, `rel="next"`)
			if next != (n > 100) || n == 0 && (rows != 0 || !strings.Contains(body, `class="empty"`)) {
				t.Errorf("%s with %d: %d rows, next %v", path, n, rows, next)
			}
			if want := most[path]; want > 0 && rows > want || want > 1 && rows < want-2 {
				t.Errorf("%s with %d: %d rows, want %d", path, n, rows, want)
			}
		}
	}
}

func TestAuditFilters(t *testing.T) {
	r := newRig(t)
	r.audits(12)
	for query, want := range map[string]int{"": 12, "actor=anna": 6, "operation=user+lock": 4, "operation=nonsense": 12,
		"from=" + r.now.AddDate(0, 0, 2).Format(time.DateOnly): 0, "to=" + r.now.AddDate(0, 0,
			-2).Format(time.DateOnly): 0,
		"from=nonsense": 12} {
		if got := max(0, strings.Count(r.page("/audit?"+query), "<tr ")-1); got != want {
			t.Errorf("%s: %d rows, want %d", query, got, want)
		}
	}
}

// TestSettingsShowNoSecret: what is in force, with its line.
func TestSettingsShowNoSecret(t *testing.T) {
	r := newRig(t, office(t))
	body := r.page("/settings")
	for _, want := range []string{"line 5", "60d", "listener[2]", "[secret]", "policy[default]"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(body, "hunter2") || strings.Contains(body, "path-that-is-secret") {
		t.Error("a secret is shown")
	}
	if body := r.page("/settings?q=HISTORY+60d"); strings.Count(body, `scope="row"`) != 2 { // of [store] and [privacy]
		t.Errorf("the search does not choose: %s", body)
	}
	if body := r.page("/settings?written=1"); strings.Contains(body, "max_connections") || !strings.Contains(body,
		"hostname") {
		t.Error("only what is written is to be shown")
	}
}

// TestDomains: looked at by hand, one of ours is kept, another is only shown.
func TestDomains(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(2)
	if body := r.page("/domains"); !strings.Contains(body, "nobody has looked yet") {
		t.Errorf("%s", body)
	}
	w := r.ask(person(operate.Helpdesk), "POST", "/domains/act/look", url.Values{"domain": {"Example.com."}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/domains/example.com" {
		t.Fatalf("%d %s", w.Code, w.Header().Get("Location"))
	}
	body := r.page("/domains/example.com")
	harmless(t, "domain", body)
	for _, want := range []string{"passes only by SPF", "_dmarc.example.com", "data-copy", "Look again"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	w = r.ask(person(operate.Helpdesk), "POST", "/domains/act/look", url.Values{"domain": {"outlook.com"}})
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "What follows is not kept.") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/domains/outlook.com", "/domains/" + url.PathEscape(hostile)} {
		if w := r.ask(person(operate.Viewer), "GET", path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := r.ask(person(operate.Helpdesk), "POST", "/domains/act/look",
		url.Values{"domain": {hostile}}); w.Code != http.StatusBadRequest {
		t.Errorf("%d", w.Code)
	}
}

func TestDoctorPage(t *testing.T) {
	r := newRig(t, office(t))
	if body := r.page("/doctor"); !strings.Contains(body, "Nobody has looked since the relay started.") {
		t.Errorf("%s", body)
	}
	if w := r.ask(person(operate.Helpdesk), "POST", "/doctor/act/run", nil); w.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if body := r.page("/doctor"); !strings.Contains(body, "did you mean host?") || !strings.Contains(body,
		"Mail is in danger.") {
		t.Errorf("%s", body)
	}
}

// TestHostileAdministration: whatever stands in any field comes out as text, printable and without markup.
func TestHostileAdministration(t *testing.T) {
	r := newRig(t, office(t))
	u := auth.User{}
	poison(reflect.ValueOf(&u).Elem())
	u.Login, u.Locked, u.Networks = "victim", true, nil
	r.must(r.store.AddUser(t.Context(), u))
	for _, k := range []trace.Kind{trace.Accepted, trace.AuthFail} {
		e := trace.Event{}
		poison(reflect.ValueOf(&e).Elem())
		e.Time, e.Kind, e.Login, e.Reply.Code = r.now, k, "victim", 550
		r.tell(e)
	}
	a := store.Alert{Since: r.now.Add(-time.Hour), Details: map[string]string{hostile: hostile}}
	poison(reflect.ValueOf(&a).Elem())
	a.Ended = time.Time{}
	r.must(r.store.SaveAlert(t.Context(), a))
	entry := store.AuditEntry{}
	poison(reflect.ValueOf(&entry).Elem())
	entry.Time = r.now
	r.must(r.store.AppendAudit(t.Context(), entry))
	q := url.QueryEscape(hostile)
	for _, path := range []string{"/logins", "/logins?q=" + q + "&kind=" + q + "&after=" + q, "/logins/victim",
		"/logins/" + url.PathEscape(hostile), "/alerts", "/alerts?after=" + q, "/audit",
		"/audit?actor=" + q + "&operation=" + q + "&from=" + q, "/settings?q=" + q, "/domains?after=" + q} {
		for _, language := range []string{"en", "de"} {
			harmless(t, path, r.ask(person(operate.Admin), "GET", path, nil, in(language)).Body.String())
		}
	}
	form := url.Values{}
	for _, name := range []string{"login", "who", "senders", "networks", "groups", "note", "password", "table", "token",
		"domain", "back", "reason", "stamp"} {
		form.Set(name, hostile)
	}
	for _, action := range []string{"lock", "password", "edit", "add", "import", "passwords", "remove", "unlock"} {
		w := r.ask(strong(), "POST", "/logins/act/"+action, form)
		harmless(t, action, w.Body.String())
		if !strings.HasPrefix(w.Header().Get("Location"), "/") && w.Code == http.StatusSeeOther {
			t.Errorf("%s leads to %s", action, w.Header().Get("Location"))
		}
	}
}

// TestHostileReports: findings, records and outcomes quote what DNS servers and certificates say.
func TestHostileReports(t *testing.T) {
	r := newRig(t)
	v := r.visit("en")
	examined := &doctor.Report{Findings: []finding.Finding{{}, {}}}
	poison(reflect.ValueOf(&examined.Findings).Elem())
	examined.Findings[0].Weight, examined.Findings[1].Weight = finding.Danger, finding.Healthy
	report := &dnscheck.Report{}
	poison(reflect.ValueOf(report).Elem())
	report.Findings[0].Weight = finding.Fault
	view, err := viewDomain(v, operate.DomainState{Domain: hostile, Report: report}, true)
	r.must(err)
	for name, body := range map[string]any{"doctor": viewDoctor(v, examined), "domain": view,
		"alerttest": []hookTest{{plain(40, hostile), plain(40, hostile), plain(40, hostile)}},
		"imported":  importedView{Imported: operate.Imported{Passwords: []operate.Credential{{Login: hostile}}}},
		"card": &card{Credential: operate.Credential{Login: hostile, Warning: hostile},
			Senders: []string{hostile}, Rights: []string{hostile}}} {
		harmless(t, name, r.drawn(name, body))
	}
}

// TestStatistics: the sums of each name, of one alone, and as a file.
func TestStatistics(t *testing.T) {
	for _, n := range []int{0, 1, 80} {
		r := newRig(t)
		if n > 0 {
			r.counted(n)
		}
		body := r.page("/statistics?by=login&span=30d")
		rows := max(0, strings.Count(body, `<tr role="row">`)-1)
		if want := min(n, statisticsNames+1); rows != want || n == 0 && !strings.Contains(body, `class="empty"`) {
			t.Errorf("%d names: %d rows, want %d", n, rows, want)
		}
	}
	r := newRig(t)
	r.counted(4)
	for _, d := range dimensions {
		for _, p := range periods {
			for _, language := range []string{"en", "de"} {
				path := "/statistics?by=" + d.by.String() + "&span=" + p.value
				harmless(t, path, r.page(path, in(language)))
			}
		}
	}
	only := r.page("/statistics?by=login&only=person002&span=30d")
	if strings.Contains(only, ">person001<") || !strings.Contains(only, "person002") || !strings.Contains(only,
		"<polyline") {
		t.Errorf("one name: %s", only)
	}
	q := url.QueryEscape(hostile)
	harmless(t, "hostile query", r.page("/statistics?by="+q+"&span="+q+"&only="+q))
	w := r.ask(person(operate.Viewer), "GET", statisticsPath+"/"+statisticsName+"?by=login&span=30d", nil)
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "start,name,messages") ||
		!strings.Contains(w.Body.String(), ",person003,") || !strings.Contains(w.Header().Get("Content-Disposition"),
		statisticsName) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := r.ask(person(operate.Nobody), "GET", statisticsPath+"/"+statisticsName,
		nil); w.Code != http.StatusForbidden {
		t.Errorf("nobody: %d", w.Code)
	}
}

// TestKeyActions: keys are made, wait for their records, and go by the second factor.
func TestKeyActions(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(2)
	form := url.Values{"domain": {"example.com"}}
	if body := r.page("/domains/example.com"); !strings.Contains(body, "/domains/act/key-add") {
		t.Errorf("no button makes keys: %s", body)
	}
	w := r.ask(person(operate.Admin), "POST", "/domains/act/key-add", form)
	keys, err := r.store.Keys(t.Context())
	if r.must(err); w.Code != http.StatusSeeOther || len(keys) != 2 {
		t.Fatalf("%d %s, %d keys", w.Code, w.Body, len(keys))
	}
	body := r.page("/domains/example.com")
	if strings.Count(body, "waits for its record") != 2 || !strings.Contains(body, "Publish its record") ||
		strings.Contains(body, "PRIVATE KEY") {
		t.Errorf("%s", body)
	}
	form.Set("selector", keys[0].Selector)
	for _, each := range []string{"key-rotate", "key-retire"} { // nothing signs yet
		question := r.ask(person(operate.Admin), "POST", "/domains/act/"+each, form)
		w = r.ask(person(operate.Admin), "POST", "/domains/act/"+each, hidden(question.Body.String()))
		if question.Code != http.StatusOK || w.Code != http.StatusConflict {
			t.Errorf("%s: %d, then %d %s", each, question.Code, w.Code, w.Body)
		}
	}
	if w = r.ask(person(operate.Admin), "POST", "/domains/act/key-remove",
		form); !strings.HasPrefix(w.Header().Get("Location"), "/again") {
		t.Errorf("the second factor is not asked for: %d", w.Code)
	}
	r.confirmedBy(strong(), "/domains/act/key-remove", form)
	if keys, err = r.store.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	w = r.ask(person(operate.Operator), "POST", "/domains/act/key-check", form)
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "DNS cannot be asked from here") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestPatience: what takes long is answered after the server's time for an answer is over, and nothing else is.
func TestPatience(t *testing.T) {
	r := newRig(t, office(t))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.server.ServeHTTP(w, req.WithContext(operate.WithActor(req.Context(), *person(operate.Admin))))
	}))
	server.Config.WriteTimeout = time.Nanosecond
	server.Start()
	defer server.Close()
	answer, err := server.Client().PostForm(server.URL+"/domains/act/look", url.Values{"domain": {"no domain"}})
	if r.must(err); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("%s", answer.Status)
	}
	answer.Body.Close()
	if answer, err := server.Client().Get(server.URL + "/doctor"); err == nil {
		answer.Body.Close()
		t.Errorf("the server's time does not end: %s", answer.Status)
	}
}

// TestDeviceNeedsASender: a device that could send as nobody is not added; a sender is suggested, and the card says
// what the provider has to grant, and that nobody reaches a server of this machine alone, or by a name unknown.
func TestDeviceNeedsASender(t *testing.T) {
	certificate := filepath.Join(t.TempDir(), "cert.pem")
	r := newRig(t, func(r *rig) {
		r.config = config.Parse("relay.toml", []byte("hostname = \"relay.firma.example\"\n[[listener]]\n"+
			"address = \"127.0.0.1:587\"\n[[upstream]]\nname = \"m\"\nprovider = \"microsoft365\"\n"+
			"username = \"office@firma.example\"\n"))
		r.look.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			return nil, &net.DNSError{IsNotFound: true}
		}
	})
	r.report.Certificates = []status.Certificate{{File: certificate, UsedBy: "listeners"}}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	r.must(os.WriteFile(certificate, key, 0o600))
	if w := r.ask(person(operate.Viewer), "GET", "/certificate.pem", nil); w.Code != http.StatusNotFound {
		t.Errorf("a key alone: %d %s", w.Code, w.Body)
	}
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("one")})
	r.must(os.WriteFile(certificate, append(key, one...), 0o600))
	if w := r.ask(person(operate.Viewer), "GET", "/certificate.pem", nil); w.Body.String() != string(one) {
		t.Errorf("the certificate: %s", w.Body)
	}
	form := url.Values{"device": {"1"}, "login": {"drucker"}}
	body := r.ask(person(operate.Operator), "POST", "/logins/act/add", form, in("de")).Body.String()
	for _, want := range []string{"drucker@firma.example</textarea>", "könnte mit keiner Adresse senden"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	form.Set("senders", "drucker@firma.example")
	body = r.ask(person(operate.Operator), "POST", "/logins/act/add", form).Body.String()
	for _, want := range []string{"office@firma.example has the right", "No device can reach this server",
		"No name server knows relay.firma.example", `href="/certificate.pem"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the card lacks %q: %s", want, body)
		}
	}
	if body := r.page("/logins/drucker"); !strings.Contains(body, "(Send As) for office@firma.example") {
		t.Errorf("the account's page: %s", body)
	}
}
