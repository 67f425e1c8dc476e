package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/privacy"
	"postern/relay/queue"
	"postern/relay/stats"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

func scanCounts(row db.Row) ([3]int64, error) {
	return [3]int64{row.Int(0), row.Int(1), row.Int(2)}, nil
}

// historyIsCounted checks that the counters of the trace are those of its rows.
func historyIsCounted(t *testing.T, s *Store) {
	t.Helper()
	want, err := readAll(t.Context(), s.readers, scanCounts, "SELECT count(*), coalesce(sum(o), 0), coalesce(sum(o) "+
		"FILTER (WHERE "+refusals+"), 0) FROM (SELECT kind, "+eventOctets+" AS o FROM event)")
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(t.Context(), s.readers, scanCounts, "SELECT sum(events), sum(history), sum(refusals) "+
		"FROM counter")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("counted %v, there are %v; %v", got, want, err)
	}
}

func bobsEvents(at time.Time) []trace.Event {
	return []trace.Event{
		{Time: at, Kind: trace.Rejected, Login: "anna", From: "anna@example.com", To: "Bob@example.net",
			Client: "192.0.2.7", Reply: mail.R(550, "5.1.1", "bob@example.net: no"), Detail: "1"},
		{Time: at.Add(time.Minute), Kind: trace.Delivered, ID: "m1", From: "anna@example.com", To: "bob@example.net",
			Client: "2001:db8:1:2::3", Detail: "2"},
		{Time: at.Add(2 * time.Minute), Kind: trace.Deferred, ID: "m1", From: "anna@example.com",
			To: "carol@example.net", Detail: "3"},
	}
}

func hideAll(t *testing.T, s *Store, now time.Time, want int64) {
	t.Helper()
	if n, err := s.HideAddresses(t.Context(), now); err != nil || n != want {
		t.Errorf("%d events were changed, want %d: %v", n, want, err)
	}
	historyIsCounted(t, s)
}

func use(t *testing.T, s *Store, recipients, clients privacy.Mode, after time.Duration) {
	t.Helper()
	if err := s.UsePrivacy(t.Context(), privacy.Rules{Recipients: recipients, Clients: clients}, after); err != nil {
		t.Fatal(err)
	}
}

// What is old enough is hashed once, found all the same, and may be cut later.
func TestAddressesAreHidden(t *testing.T) {
	s := open(t, Options{})
	s.Hurry()
	appendEvents(t, s, bobsEvents(eventTime)...)
	for range 3 {
		appendEvents(t, s, bobsEvents(eventTime.Add(48*time.Hour))...)
	}
	now := eventTime.Add(49 * time.Hour)
	hideAll(t, s, now, 0) // nobody said so
	use(t, s, privacy.Keep, privacy.Keep, 0)
	hideAll(t, s, now, 0)
	use(t, s, privacy.Hash, privacy.Cut, 24*time.Hour)
	hideAll(t, s, now, 3)
	hideAll(t, s, now, 0)
	ask := trace.Query{To: "bob@Example.net", Limit: 100}
	if got := strings.Join(search(t, s, ask), " "); got != "1 2 1 1 1 2 2 2" {
		t.Errorf("found %s", got)
	}
	ask.Limit = 3
	if got := strings.Join(search(t, s, ask), " "); got != "2 2 2" {
		t.Errorf("found %s", got)
	}
	events, err := s.Events(t.Context(), trace.Query{To: "*@example.net", Until: eventTime.Add(time.Hour)})
	if err != nil || len(events) != 3 || events[0].Client != "192.0.2.0/24" || events[1].To != events[0].To ||
		!strings.Contains(events[0].Reply.Text, events[0].To) || strings.Contains(events[0].To, "ob@") {
		t.Errorf("%+v, %v", events, err)
	}
	use(t, s, privacy.Cut, privacy.Cut, 24*time.Hour) // stricter: from the beginning
	hideAll(t, s, now, 3)
	hideAll(t, s, now.Add(24*time.Hour), 9)
	if got := search(t, s, ask); len(got) != 0 {
		t.Errorf("found %q", got)
	}
	if got := search(t, s, trace.Query{To: "*@example.net", Limit: 100}); len(got) != 12 {
		t.Errorf("%d events of the domain", len(got))
	}
}

// With after = 0, addresses are never written.
func TestAddressesAreHiddenBeforeTheyAreWritten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Daemon: true})
	s.Hurry()
	use(t, s, privacy.Hash, privacy.Hash, 0)
	appendEvents(t, s, bobsEvents(eventTime)...)
	historyIsCounted(t, s)
	if got := strings.Join(search(t, s, trace.Query{To: "bob@example.net"}), " "); got != "1 2" {
		t.Errorf("found %s", got)
	}
	fileOnly(t)
	for _, name := range []string{FileName, FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		for _, word := range []string{"bob@", "carol@", "@bob", "192.0.2.7", "2001:db8"} {
			if err != nil || bytes.Contains(bytes.ToLower(b), []byte(word)) {
				t.Errorf("%s is in %s (%v)", word, name, err)
			}
		}
	}
}

// forgetRig is a store in which bob is everywhere, and others too.
func forgetRig(t *testing.T) *Store {
	s := open(t, Options{})
	s.Hurry()
	const bob = "bob@example.net"
	events := []trace.Event{
		{Kind: trace.Delivered, To: bob, From: "anna@example.com", Detail: "gone"},
		{Kind: trace.Delivered, To: "BOB@example.net", Detail: "gone"},
		{Kind: trace.Accepted, From: "Bob@example.net", Login: "x", Detail: "gone"},
		{Kind: trace.Accepted, Author: bob, Detail: "gone"},
		{Kind: trace.AuthFail, Login: bob, Client: "192.0.2.1", Detail: "gone"},
		{Kind: trace.Accepted, To: bob + " and 2 more", Detail: "1"},
		{Kind: trace.Report, Detail: "2: to Bob@Example.net, carol@example.net"},
		{Kind: trace.Failed, To: "carol@example.net", Reply: mail.R(550, "", "<%s> and others", bob), Detail: "3"},
		{Kind: trace.Failed, To: "jacob@example.net", Detail: "4: jacob@example.net"},
		{Kind: trace.Failed, To: "carol@example.net", Detail: "5: bob@example.net.invalid"},
	}
	for i := range events {
		events[i].Time = eventTime.Add(time.Duration(i) * time.Minute)
	}
	appendEvents(t, s, events...)
	for i := range 300 {
		appendEvents(t, s, trace.Event{Time: eventTime.Add(time.Hour + time.Duration(i)), To: bob, Detail: "gone"})
		statAt(t, s, eventTime.Add(time.Duration(i)*time.Hour), bob)
		statAt(t, s, eventTime.Add(time.Duration(i)*time.Hour), "anna")
	}
	for _, login := range []string{"anna", bob} {
		if err := s.RememberRecipients(t.Context(), login, []string{bob, "carol@example.net"}, eventTime); err != nil {
			t.Fatal(err)
		}
	}
	m := benchMessage(eventTime, "anna", false)
	m.ID = "waits"
	m.Recipients[0].To = mail.Address{Local: "bob", Domain: "example.net"}
	if err := s.Add(t.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent(nil)}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestForget(t *testing.T) {
	s := forgetRig(t)
	f, err := s.Forget(t.Context(), "bob@example.net", "by a test")
	if err != nil || f.Events != 305 || f.Shortened != 3 || f.Statistics != 300+13 || f.Recipients != 3 ||
		!slices.Equal(f.Queued, []string{"waits"}) || f.Account {
		t.Errorf("%+v, %v", f, err)
	}
	historyIsCounted(t, s)
	all, err := s.Events(t.Context(), trace.Query{Limit: 1000})
	if err != nil || len(all) != 6 {
		t.Fatalf("%+v, %v", all, err)
	}
	told := all[len(all)-1]
	if told.Kind != trace.Operator || !strings.Contains(told.Detail, "305 events") {
		t.Errorf("%+v", told)
	}
	for _, e := range all {
		text := strings.ToLower(fmt.Sprintf("%+v", e))
		for _, fine := range []string{"jacob@example.net", "bob@example.net.invalid"} {
			text = strings.ReplaceAll(text, fine, "")
		}
		if strings.Contains(text, "bob@example.net") || e.Detail == "gone" {
			t.Errorf("%+v", e)
		}
	}
	if all[0].To != "(removed) and 2 more" || all[1].Detail != "2: to (removed), carol@example.net" {
		t.Errorf("%+v", all[:2])
	}
	if a, err := s.Search(t.Context(), trace.Search{Words: "bob@example.net"}); err != nil || len(a.Found) != 0 {
		t.Errorf("the search finds %+v, %v", a.Found, err)
	}
	q := stats.Query{By: stats.Login, Since: eventTime}
	table, err := s.Statistics(t.Context(), q, eventTime.Add(400*time.Hour))
	if err != nil || len(table.Rows) != 2 || table.Rows[0].Key != "anna" || table.Rows[1].Key != stats.Other ||
		table.Rows[1].Messages != 300 || table.Total.Messages != 600 {
		t.Errorf("%+v, %v", table, err)
	}
	if n, err := s.NewRecipients(t.Context(), "anna", []string{"bob@example.net", "carol@example.net"}); n != 1 ||
		err != nil {
		t.Errorf("%d are new, %v", n, err)
	}
	if f, err = s.Forget(t.Context(), "bob@example.net", "by a test"); err != nil || f.Events+f.Shortened+f.Statistics+
		f.Recipients != 0 {
		t.Errorf("again: %+v, %v", f, err)
	}
}

// Also who is hashed is forgotten, and a login that is no address is looked for as login only.
func TestForgetTheHashed(t *testing.T) {
	s := forgetRig(t)
	use(t, s, privacy.Hash, privacy.Hash, 24*time.Hour)
	if n, err := s.HideAddresses(t.Context(), eventTime.Add(100*time.Hour)); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	hashed, err := s.Pseudonym(t.Context(), "bob@example.net")
	if err != nil || hashed == "" {
		t.Fatal(hashed, err)
	}
	if f, err := s.Forget(t.Context(), "bob@example.net", "by a test"); err != nil || f.Events != 305 ||
		f.Shortened != 3 {
		t.Errorf("%+v, %v", f, err)
	}
	all, err := s.Events(t.Context(), trace.Query{Limit: 1000})
	if err != nil || strings.Contains(fmt.Sprintf("%+v", all), hashed) {
		t.Errorf("%+v, %v", all, err)
	}
	appendEvents(t, s, trace.Event{Kind: trace.Accepted, Login: "scanner"}, trace.Event{Kind: trace.Failed,
		Detail: "the scanner failed"})
	if f, err := s.Forget(t.Context(), "scanner", "by a test"); err != nil || f.Events != 1 || f.Shortened != 0 {
		t.Errorf("%+v, %v", f, err)
	}
	for _, name := range []string{"", " ", "*@example.net"} {
		if _, err := s.Forget(t.Context(), name, "by a test"); err == nil {
			t.Errorf("%q is forgotten", name)
		}
	}
}

// docs/privacy.md says of every table what of people is in it, and of no other.
func TestPrivacyGuideNamesEveryTable(t *testing.T) {
	guide, err := os.ReadFile("../../docs/privacy.md")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Daemon: true})
	query, others := "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
		[]string{"message_body", "content", "node", "leader", "upstream_shared", "alert_told"}
	if onServer() {
		query, others = "SELECT relname::text FROM pg_class WHERE relkind IN ('r'::\"char\", 'p'::\"char\") AND "+
			"NOT relispartition AND relnamespace = current_schema()::regnamespace", []string{"chunk"}
	}
	tables, err := readAll(t.Context(), s.readers, text, query)
	if err != nil || len(tables) < 20 {
		t.Fatalf("%q, %v", tables, err)
	}
	_, list, _ := strings.Cut(string(guide), "## What is where")
	list, _, _ = strings.Cut(list, "\n## ")
	for _, name := range tables {
		if strings.Count(list, "`"+name+"`") != 1 {
			t.Errorf("what of people is in the table %s? docs/privacy.md does not say, or twice", name)
		}
	}
	for _, m := range regexp.MustCompile("`([a-z]+_?[a-z]+)`").FindAllStringSubmatch(list, -1) {
		known := []string{"history", "statistics", "data_dir", "sqlite3", "psql", "history_size"}
		if !slices.Contains(tables, m[1]) && !slices.Contains(known, m[1]) && !slices.Contains(others, m[1]) {
			t.Errorf("there is no table %s", m[1])
		}
	}
}
