package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/queue"
	"postern/relay/store"
	"postern/relay/trace"
)

func FuzzCursor(f *testing.F) {
	for _, c := range []cursor{{"queue", "0mrz"}, {"logins", "anna@example.com"}, {"lockouts", " 192.0.2.0/24"},
		{"found", "zz"}, {"a", "b:c"}} {
		f.Add(c.list, c.String())
	}
	f.Add("queue", "")
	f.Add("queue", "====")
	f.Add("queue", strings.Repeat("A", maxCursor+1))
	f.Fuzz(func(t *testing.T, list, text string) {
		at, err := parseCursor(list, text)
		switch {
		case err != nil:
			if p, ok := problemOf(err); !ok || p.Status != http.StatusUnprocessableEntity || len(text) > 8 &&
				strings.Contains(p.Detail, text) {
				t.Fatalf("%q: %v", text, err)
			}
		case text == "" && at == "":
		case len(text) > maxCursor || (cursor{list, at}).String() != text:
			t.Fatalf("%q is taken as %q of %q", text, at, list)
		}
	})
}

func TestCursorOfAnotherList(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/queue", "/messages", "/logins", "/devices", "/lockouts", "/domains"} {
		for _, c := range []string{cursor{"other", "x"}.String(), "%00", "x", cursor{"found", "!"}.String() + "=",
			cursor{"found", "no number"}.String()} {
			got := r.do(admin, request(http.MethodGet, path+"?cursor="+c, ""))
			if got.StatusCode != http.StatusUnprocessableEntity || got.problem() != "invalid" {
				t.Errorf("%s?cursor=%s: %d %s", path, c, got.StatusCode, got.body)
			}
		}
	}
}

func idsOf(body []byte) (ids []string, next string) {
	var p QueuePage
	if json.Unmarshal(body, &p) != nil {
		return []string{"bad"}, ""
	}
	for _, m := range p.Messages {
		ids = append(ids, m.ID)
	}
	return ids, p.Next
}

// Over a thousand messages, of which some leave and others come between two pages, each that stays is seen once.
func TestPagesOfQueue(t *testing.T) {
	r := newRig(t)
	var news []queue.NewMessage
	for i := range 1000 {
		news = append(news, r.message(fmt.Sprintf("m%04d", i), nil))
	}
	if err := r.store.Add(t.Context(), news...); err != nil {
		t.Fatal(err)
	}
	ids := pages(r, "/queue?limit=90&login=anna", idsOf, func(page int) {
		for _, gone := range []int{page * 90, page*90 - 1} { // the next row, and the one that the cursor names
			only := queue.Filter{IDs: []string{fmt.Sprintf("m%04d", gone)}}
			if _, err := r.store.Delete(t.Context(), only); err != nil {
				t.Fatal(err)
			}
		}
		r.queued(fmt.Sprintf("m0000-%02d", page), nil) // before all that is still to come
		r.queued(fmt.Sprintf("n%02d", page), nil)
	})
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Error("rows are there twice, or in disorder")
	}
	for i := range 1000 {
		id := fmt.Sprintf("m%04d", i)
		if left, err := r.store.Get(t.Context(), id); err == nil && !slices.Contains(ids, left.ID) {
			t.Errorf("%s stayed, and was not listed", id)
		}
	}
	if !slices.Contains(ids, "n01") || slices.Contains(ids, "m0000-01") {
		t.Error("what came behind the page is not listed, or what came before it is")
	}
	var all QueuePage
	if r.get("/queue?limit=500", &all); len(all.Messages) != 500 || all.Totals == nil || all.Totals.Waiting != 7 {
		t.Errorf("%d messages, totals %+v", len(all.Messages), all.Totals)
	}
	second := QueuePage{}
	if r.get("/queue?limit=500&cursor="+all.Next, &second); second.Totals != nil {
		t.Error("totals on the second page")
	}
}

func TestPagesOfAccounts(t *testing.T) {
	r := newRig(t)
	var logins []string
	for i := range 1001 {
		logins = append(logins, fmt.Sprintf("u%04d@example.com", i))
	}
	err := r.store.ChangeUsers(t.Context(), logins, func(u *auth.User, _ bool) error {
		u.Hash, u.Device = "x", strings.HasSuffix(u.Login, "0@example.com")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := func(body []byte) (names []string, next string) {
		var p Accounts
		if json.Unmarshal(body, &p) != nil {
			return []string{"bad"}, ""
		}
		for _, a := range p.Accounts {
			names = append(names, a.Login)
		}
		return names, p.Next
	}
	if got := pages(r, "/logins?limit=100", rows, nil); !slices.Equal(got, logins) {
		t.Errorf("%d logins", len(got))
	}
	got := pages(r, "/devices?limit=20", rows, func(page int) {
		if err := r.store.DeleteUser(t.Context(), fmt.Sprintf("u%04d@example.com", page*200-10),
			func(auth.User) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if len(got) != 101 {
		t.Errorf("%d devices", len(got))
	}
}

// New events do not move the pages of a search.
func TestPagesOfSearch(t *testing.T) {
	r := newRig(t)
	var events []trace.Event
	for i := range 1000 {
		events = append(events, trace.Event{Kind: trace.Delivered, ID: fmt.Sprint("m", i), Login: "anna",
			To: "bob@example.org", Time: noon.Add(time.Duration(i) * time.Second)})
	}
	r.happened(events...)
	rows := func(body []byte) (ids []string, next string) {
		var p FoundPage
		if json.Unmarshal(body, &p) != nil {
			return []string{"bad"}, ""
		}
		for _, f := range p.Found {
			ids = append(ids, f.ID)
		}
		return ids, p.Next
	}
	for _, q := range []string{"", "anna", "bob@example.org", "example.org"} {
		ids := pages(r, "/messages?limit=77&q="+q, rows, func(page int) {
			r.happened(trace.Event{Kind: trace.Delivered, ID: "late", Login: "anna", To: "bob@example.org",
				Time: noon.Add(time.Hour + time.Duration(page)*time.Second)})
		})
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == "late" }) // of a search before
		if len(ids) != 1000 || ids[0] != "m999" || ids[999] != "m0" {
			t.Errorf("%q: %d rows", q, len(ids))
		}
	}
}

func TestPagesOfLockouts(t *testing.T) {
	r := newRig(t)
	until := time.Now().Add(time.Hour)
	r.locked(auth.Lock{Login: "carl", Until: until, Failures: 10},
		auth.Lock{Client: prefix("192.0.2.7/32"), Until: until, Failures: 10},
		auth.Lock{Client: prefix("2001:db8::/48"), Until: until, Failures: 40},
		auth.Lock{Login: "carl", Client: prefix("192.0.2.7/32"), Until: until, Failures: 10})
	rows := func(body []byte) (names []string, next string) {
		var p Lockouts
		if json.Unmarshal(body, &p) != nil {
			return []string{"bad"}, ""
		}
		for _, l := range p.Lockouts {
			names = append(names, l.Login+" "+l.Address)
		}
		return names, p.Next
	}
	want := []string{" 192.0.2.7", " 2001:db8::/48", "carl ", "carl 192.0.2.7"}
	if got := pages(r, "/lockouts?limit=1", rows, nil); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	var u Unlocked
	r.send(http.MethodDelete, "/lockouts/2001:db8::%2F48", "", http.StatusOK, &u)
	if len(u.Lifted) != 1 || u.Lifted[0].Address != "2001:db8::/48" {
		t.Errorf("lifted %+v", u)
	}
	r.send(http.MethodDelete, "/lockouts/carl", "", http.StatusOK, &u)
	if len(u.Lifted) != 2 || u.Login != "carl" || u.Account {
		t.Errorf("lifted %+v", u)
	}
	if got := r.do(operate.Actor{Name: "h", Channel: operate.Console, Role: operate.Helpdesk},
		request(http.MethodDelete, "/lockouts/192.0.2.7", "")); got.StatusCode != http.StatusForbidden {
		t.Errorf("helpdesk: %d", got.StatusCode)
	}
}

// Alerts that began at one moment are all in the pages.
func TestPagesOfAlerts(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		a := store.Alert{Event: "queue-age", Subject: fmt.Sprint("queue ", i), Since: noon, Summary: "mail waits"}
		if err := r.store.SaveAlert(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	rows := func(body []byte) (names []string, next string) {
		var p AlertPage
		if json.Unmarshal(body, &p) != nil {
			return []string{"bad"}, ""
		}
		for _, a := range p.Alerts {
			names = append(names, a.Subject)
		}
		return names, p.Next
	}
	want := []string{"queue 4", "queue 3", "queue 2", "queue 1", "queue 0"}
	if got := pages(r, "/alerts?limit=2", rows, nil); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
