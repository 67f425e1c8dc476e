package console

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/admin/access"
	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/devices"
	"postern/relay/trace"
)

// loginsPage lists logins and devices.
var loginsPage = page{path: "/logins", title: "Logins and devices", menu: true, needs: operate.SeeAccounts,
	sheet: "logins", show: showLogins, actions: []action{
		{path: "/logins/act/unlock", needs: operate.Unlock, do: unlock},
	}}

// loginsView is the body of the page.
type loginsView struct {
	Words    string
	Kinds    []choice
	Rows     []loginRow
	Learning []devices.Learning // under way
	Locks    []addressLock
	Locked   []auth.LoginLock // that have no account in the store
	Found    int              // accounts that match
	Any      bool
	Pager    pager
	Here     string
	MayAdd   bool
	MayLift  bool
	MayFill  bool // take in a table
}

// loginRow is an account, and what the trace last knows of it.
type loginRow struct {
	auth.User
	activity
	Icon, Word string
	Until      time.Time // of a lockout; zero: none
	Link       string
	Sends      string
}

// addressLock is an address that is locked out for a while.
type addressLock struct {
	Address  string
	Until    time.Time
	Failures int
}

// shownSenders is how many senders the list names of an account.
const shownSenders = 5

// loginsOn is how many accounts a page lists: the trace is asked about each.
const loginsOn = 50

// kindsOf are the filters of the list.
var kindsOf = []struct {
	value string
	label key
	has   func(r *loginRow) bool
}{
	{"", "all kinds", func(*loginRow) bool { return true }},
	{"person", "people", func(r *loginRow) bool { return !r.Device }},
	{"device", "devices", func(r *loginRow) bool { return r.Device }},
	{"locked", "locked", func(r *loginRow) bool { return r.Locked || !r.Until.IsZero() }},
}

func showLogins(v *visit) (any, error) {
	q := v.URL.Query()
	view := loginsView{Words: strings.TrimSpace(plain(maxFilter, q.Get("q"))), Here: v.here(),
		MayAdd: v.may(operate.AddAccount), MayLift: v.may(operate.Unlock), MayFill: v.may(operate.ImportAccounts)}
	users, locks, err := v.console.Operations.Accounts.List(v.Context(), v.actor, operate.Everybody)
	if err != nil {
		return nil, err
	}
	if view.Learning, err = v.console.Operations.Devices.Learnings(v.Context(), v.actor, v.now); err != nil {
		return nil, err
	}
	chosen, kind := kindsOf[0], q.Get("kind")
	for _, k := range kindsOf {
		view.Kinds = append(view.Kinds, choice{k.value, v.t(k.label), k.value == kind})
		if k.value == kind {
			chosen = k
		}
	}
	view.Any = view.Words != "" || chosen.value != ""
	view.Locks = lockedAddresses(locks)
	view.Locked, err = v.console.Operations.Accounts.LockedElsewhere(v.Context(), v.actor, operate.Everybody)
	if err != nil {
		return nil, err
	}
	view.Locked = view.Locked[:min(len(view.Locked), maxLocks)]
	rows := make([]loginRow, 0, len(users))
	for _, u := range users {
		r := loginRow{User: u, Until: lockedUntil(locks, u.Login)}
		if chosen.has(&r) && matches(&u, view.Words) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b loginRow) int { return cmp.Compare(a.Login, b.Login) })
	view.Found = len(rows)
	rows = slices.DeleteFunc(rows, func(r loginRow) bool { return r.Login <= q.Get("after") })
	next := ""
	if len(rows) > loginsOn {
		rows = rows[:loginsOn]
		next = rows[loginsOn-1].Login
	}
	view.Pager = v.paged("after", next)
	view.Rows = rows
	return view, describeLogins(v, view.Rows)
}

// describeLogins fills in what a row says beside the account.
func describeLogins(v *visit, rows []loginRow) (err error) {
	for i := range rows {
		r := &rows[i]
		r.Link = loginPath(r.Login)
		r.Icon, r.Word = standingOf(v, &r.User, r.Until)
		s, err := v.console.Operations.Clients.Sending(v.Context(), v.actor, r.User)
		if err != nil {
			return err
		}
		r.Sends = strings.Join(s.Senders[:min(len(s.Senders), shownSenders)], ", ")
		if r.activity, err = lastOf(v, r.Login); err != nil {
			return err
		}
	}
	return nil
}

func loginPath(login string) string { return "/logins/" + url.PathEscape(login) }

// standingOf says whether an account can log in.
func standingOf(v *visit, u *auth.User, until time.Time) (icon, word string) {
	switch {
	case u.Locked:
		return "bad", v.t("locked")
	case !until.IsZero():
		return "wait", v.t("locked out")
	}
	return "ok", v.t("may log in")
}

// matches looks for words in what people know of an account, without regard to case.
func matches(u *auth.User, words string) bool {
	text := strings.ToLower(strings.Join(slices.Concat([]string{u.Login, u.Note, u.LockReason}, u.Senders, u.Groups),
		"\n"))
	for _, w := range strings.Fields(strings.ToLower(words)) {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// lockedUntil is when the last lockout of a login ends, zero where there is none.
func lockedUntil(locks []auth.Lock, login string) (until time.Time) {
	for _, l := range locks {
		if l.Login == login && l.Until.After(until) {
			until = l.Until
		}
	}
	return until
}

// maxLocks bounds how many locked addresses are listed.
const maxLocks = 50

// lockedAddresses are those that are locked for every login.
func lockedAddresses(locks []auth.Lock) (all []addressLock) {
	for _, l := range locks {
		if l.Login == "" && len(all) < maxLocks {
			all = append(all, addressLock{operate.LockedAddress(l), l.Until, l.Failures})
		}
	}
	return all
}

// lastOf is what the trace last knows of a login.
type activity struct {
	Seen    *trace.Event // its last message that we accepted
	Trouble *trace.Event // its last refusal, or message that was given up
	Answer  []Said       // what was said then
}

// maxOfLogin is how many of the last events of a login are looked at.
const maxOfLogin = 60

func lastOf(v *visit, login string) (a activity, err error) {
	events, err := v.console.Operations.Trace.Events(v.Context(), v.actor,
		trace.Query{Login: login, Limit: maxOfLogin}, "")
	return activityOf(v, events), err
}

// activityOf looks through events, which are oldest first.
func activityOf(v *visit, events []trace.Event) (a activity) {
	for i := range events {
		switch e := &events[i]; {
		case e.Kind == trace.Accepted:
			a.Seen = e
		case e.Kind.IsRefusal() || e.Kind == trace.Failed:
			a.Trouble = e
		}
	}
	if a.Trouble != nil {
		a.Answer = v.answer(maxAnswer, a.Trouble.Reply, a.Trouble.Detail)
	}
	return a
}

// maxAnswer bounds what an event says on the pages of logins, in octets.
const maxAnswer = 300

// TroubleLink leads to the story of the last trouble.
func (a activity) TroubleLink() string {
	if a.Trouble == nil {
		return ""
	}
	if name := cmp.Or(a.Trouble.ID, a.Trouble.Session); name != "" {
		return "/messages/" + url.PathEscape(name)
	}
	return ""
}

// unlock lets a login or an address in again.
func unlock(v *visit) (string, any, error) {
	back := access.LocalPath(v.PostForm.Get("back"))
	who := mail.Cut(v.PostForm.Get("who"), maxFilter)
	done, err := v.console.Operations.Accounts.Unlock(v.Context(), v.actor, who)
	if err != nil {
		return "", nil, err
	}
	if done.Account || len(done.Lifted) > 0 {
		v.leave("%s may log in again.", who)
	}
	return back, nil, nil
}
