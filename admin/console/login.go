package console

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/trace"
)

// loginPage shows one login or device, and changes it.
var loginPage = page{path: "/logins/{login}", title: "Login", under: "/logins", needs: operate.SeeAccounts,
	sheet: "login", show: showLogin, actions: append([]action{
		{path: "/logins/act/lock", needs: operate.LockAccount, do: lockLogin, sheet: "confirm", title: "Login"},
		{path: "/logins/act/password", needs: operate.NewPassword, do: newPassword, sheet: "confirm", title: "Login"},
		{path: "/logins/act/edit", needs: operate.EditAccount, do: editLogin},
		{path: "/logins/act/remove", needs: operate.RemoveAccount, do: removeLogin, sheet: "confirm", title: "Login"},
	}, slices.Concat(keyActionsOfLogin, appActionsOfLogin)...)}

// loginView is the body of the page.
type loginView struct {
	auth.User
	activity
	Icon, Word  string
	Until       time.Time // of a lockout
	LastChange  time.Time
	Events      []loginEvent // the newest first
	Form        loginForm
	Here, Stamp string
	Limits      []limitRow
	LimitsLate  bool // the daemon did not answer
	Sends       operate.Sending
	Held        int      // messages, at most queueList
	Rights      []string // accounts at the provider that need the right to send as them
	Far         bool     // a device that no listener is open to
	Suggest     string   // a sender, where it has none
	Elsewhere   bool     // its account is in another source
	loginWays

	MayEdit, MayLock, MayUnlock, MayRenew, MayRemove, MayRevoke bool
}

// loginEventOf is a line of what happened lately.
type loginEvent struct {
	*trace.Event
	Icon, Word, Link string
	Words            []Said
}

// loginForm is what people type about an account: lists with a line for each.
type loginForm struct {
	Login, Senders, Networks, Groups, Note string
	Problem                                string // what is wrong with it
}

// Bounds of the page and its forms.
const (
	shownEvents = 12
	maxLines    = 200    // of a list
	maxList     = 20_000 // octets of a list
	maxNote     = 2000   // octets
)

func showLogin(v *visit) (any, error) {
	return viewLogin(v, mail.Cut(v.PathValue("login"), maxFilter))
}

func viewLogin(v *visit, name string) (*loginView, error) {
	u, here, err := v.console.Operations.Accounts.Known(v.Context(), v.actor, operate.Everybody, name)
	if err != nil {
		return nil, err
	}
	_, locks, err := v.console.Operations.Accounts.List(v.Context(), v.actor, operate.Everybody)
	if err != nil {
		return nil, err
	}
	v.console.Operations.Trace.Await(v.Context())
	events, err := v.console.Operations.Trace.Events(v.Context(), v.actor,
		trace.Query{Login: u.Login, Limit: maxOfLogin}, "")
	if err != nil {
		return nil, err
	}
	view := &loginView{User: u, activity: activityOf(v, events), Until: lockedUntil(locks, u.Login),
		LastChange: operate.LastChange(u), Form: formOf(&u), Here: loginPath(u.Login), Stamp: stampOf(&u),
		Elsewhere: !here, MayEdit: here && v.may(operate.EditAccount), MayLock: v.may(operate.LockAccount) && !u.Locked,
		MayRenew: here && v.may(operate.NewPassword), MayRemove: here && v.may(operate.RemoveAccount),
		MayRevoke: v.may(operate.RevokeAppPassword)}
	view.Icon, view.Word = standingOf(v, &u, view.Until)
	view.MayUnlock = v.may(operate.Unlock) && (u.Locked || !view.Until.IsZero())
	if view.Limits, view.LimitsLate, err = limitsOf(v, u.Login); err != nil {
		return nil, err
	}
	if err := errors.Join(view.sending(v), view.ways(v)); err != nil {
		return nil, err
	}
	for _, e := range slices.Backward(events) {
		if len(view.Events) == shownEvents {
			break
		}
		view.Events = append(view.Events, loginEventOf(v, &e))
	}
	return view, nil
}

// sending adds what the account may send as.
func (l *loginView) sending(v *visit) (err error) {
	a := v.console.Operations.Clients
	if l.Sends, err = a.Sending(v.Context(), v.actor, l.User); err != nil {
		return err
	}
	if len(l.Sends.Senders) == 0 {
		l.Suggest = plain(maxFilter, operate.SuggestedSender(a.Config(), l.Login))
	}
	if l.Rights, err = a.NeedsRight(v.actor, l.Sends.Senders); err != nil {
		return err
	}
	if l.Far, err = a.Unreached(v.actor, l.User); err != nil {
		return err
	}
	l.Held, err = heldOf(v, l.Login)
	return err
}

func loginEventOf(v *visit, e *trace.Event) loginEvent {
	l := loginEvent{Event: e}
	l.Icon, l.Word = v.kind(e.Kind)
	l.Link, l.Words = activity{Trouble: e}.TroubleLink(), v.answer(maxAnswer, e.Reply, e.Detail)
	return l
}

// formOf is an account as its form shows it.
func formOf(u *auth.User) loginForm {
	lines := func(list []string) string { return plainLines(maxList, strings.Join(list, "\n")) }
	return loginForm{Login: u.Login, Senders: lines(u.Senders), Networks: networkLines(u.Networks),
		Groups: lines(u.Groups), Note: u.Note}
}

// plainLines is a text of several lines from outside: printable but for its tabs, and bounded.
func plainLines(n int, text string) string {
	var b strings.Builder
	for part := range strings.SplitAfterSeq(strings.ReplaceAll(mail.Cut(text, n), "\r\n", "\n"), "\n") {
		for cell := range strings.SplitAfterSeq(strings.TrimSuffix(part, "\n"), "\t") {
			b.WriteString(mail.Printable(strings.TrimSuffix(cell, "\t")))
			b.WriteString(cell[len(strings.TrimSuffix(cell, "\t")):])
		}
		b.WriteString(part[len(strings.TrimSuffix(part, "\n")):])
	}
	return b.String()
}

// networkLines writes networks a line each, those of one address as the address.
func networkLines(networks []netip.Prefix) string {
	lines := make([]string, len(networks))
	for i, n := range networks {
		if lines[i] = n.String(); n.IsSingleIP() {
			lines[i] = n.Addr().String()
		}
	}
	return strings.Join(lines, "\n")
}

// Networked is where the account may log in from, for people.
func (l *loginView) Networked() []string {
	if len(l.Networks) == 0 {
		return nil
	}
	return strings.Split(networkLines(l.Networks), "\n")
}

// typedLogin reads the form of an account.
func typedLogin(v *visit) loginForm {
	get := func(name string, most int) string { return strings.TrimSpace(plainLines(most, v.PostForm.Get(name))) }
	return loginForm{Login: get("login", maxFilter), Senders: get("senders", maxList), Networks: get("networks",
		maxList),
		Groups: get("groups", maxList), Note: get("note", maxNote)}
}

// listed splits what was typed into a list: by lines, commas and semicolons.
func listed(text string) (all []string) {
	for each := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune("\r\n,;", r) }) {
		if each = strings.TrimSpace(each); each != "" && len(all) < maxLines {
			all = append(all, each)
		}
	}
	return all
}

// listEdit makes a list what was typed.
func listEdit(text string) operate.ListEdit {
	list := listed(text)
	return operate.ListEdit{Set: list, Clear: len(list) == 0}
}

// editLogin changes what may be changed of an account. What was typed wrong comes back with the reason.
func editLogin(v *visit) (string, any, error) {
	f := typedLogin(v)
	_, changes, err := v.console.Operations.Accounts.Edit(v.Context(), v.actor, operate.Everybody, f.Login,
		operate.AccountEdit{Senders: listEdit(f.Senders), Networks: listEdit(f.Networks), Groups: listEdit(f.Groups),
			Note: &f.Note})
	if kind, theirs := operate.KindOf(err); theirs && kind != operate.NotFound {
		view, showErr := viewLogin(v, f.Login)
		if showErr != nil {
			return "", nil, showErr
		}
		f.Problem = plain(1000, err)
		view.Form = f
		return "", view, nil
	}
	if err != nil {
		return "", nil, err
	}
	if len(changes) == 0 {
		v.leave("Nothing was changed: it was so already.")
	} else {
		v.leave("%s was changed.", f.Login)
	}
	return loginPath(f.Login), nil, nil
}

// askedLogin reads of which login an action is, and the way back.
func askedLogin(v *visit) (login, back string) {
	login = mail.Cut(v.PostForm.Get("login"), maxFilter)
	return login, loginPath(login)
}

// ofLogin is the step before an action on a login.
func ofLogin(login, back, action string, more ...field) confirmation {
	return confirmation{Action: action, Back: back, Fields: append(more, field{"login", login})}
}

func lockLogin(v *visit) (string, any, error) {
	login, back := askedLogin(v)
	if !v.confirmed() {
		c := ofLogin(login, back, "/logins/act/lock")
		c.Question, c.Verb, c.Danger = v.t("Lock %s?", plain(120, login)), v.t("Lock"), true
		c.Meaning = v.t("It cannot log in until somebody unlocks it, and its open connections end.") + " " +
			v.t("Mail that was accepted already still goes out.")
		c.Ask = v.t("Reason, for whoever looks at the list (may stay empty)")
		return "", &c, nil
	}
	reason := plain(maxNotice, v.PostForm.Get("reason"))
	if reason == "" {
		reason = v.t("by %s", plain(60, v.actor.Name))
	}
	if err := v.console.Operations.Accounts.Lock(v.Context(), v.actor, login, reason); err != nil {
		return "", nil, err
	}
	v.leave("%s is locked.", login)
	return back, nil, nil
}

func removeLogin(v *visit) (string, any, error) {
	login, back := askedLogin(v)
	if !v.confirmed() {
		c := ofLogin(login, back, "/logins/act/remove")
		c.Question, c.Verb, c.Danger = v.t("Remove %s?", plain(120, login)), v.t("Remove"), true
		c.Meaning = v.t("It cannot log in any more, and this cannot be undone.") + " " +
			v.t("Mail that was accepted already still goes out.")
		return "", &c, nil
	}
	if err := v.console.Operations.Accounts.Remove(v.Context(), v.actor, operate.Everybody, login); err != nil {
		return "", nil, err
	}
	v.leave("%s is removed.", login)
	return "/logins", nil, nil
}
