package door

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/admin/access"
	"postern/admin/console"
	"postern/internal/local"
	"postern/operate"
	"postern/relay/store"
)

// people are the pages about who may into the console.
type people struct{ users access.Users }

// roles are those that somebody may have, the least first.
var roles = []string{operate.Viewer.String(), operate.Helpdesk.String(), operate.Operator.String(),
	operate.Admin.String()}

// personRow is somebody who may into the console.
type personRow struct {
	Name, Role   string
	Disabled     bool
	Invited      bool // has not accepted yet
	Passkey, App bool
	OIDC         bool
	Last         time.Time
	Change       string // where that is done
	Invite       string // where an invitation is repeated, "" where there is nothing to repeat
}

func rowOf(u store.ConsoleUser) personRow {
	q := url.Values{"name": {u.Name}}.Encode()
	row := personRow{Name: clean(u.Name), Role: u.Role, Disabled: u.Disabled, OIDC: u.Provider != "",
		Passkey: len(u.Passkeys) > 0, App: u.TOTP != "", Last: u.LastLogin, Change: peoplePath + "/change?" + q}
	if row.Invited = !u.Disabled && !u.Active(); row.Invited && u.Hash == "" {
		row.Invite = peoplePath + "/invite?" + url.Values{"name": {u.Name}, "role": {u.Role}}.Encode()
	}
	return row
}

// list shows who may into the console.
func (p people) list(v *console.Visit) {
	users, err := p.users.List(v.Context(), v.Actor())
	if err != nil {
		v.Refuse(err)
		return
	}
	rows := make([]personRow, len(users))
	for i, u := range users {
		rows[i] = rowOf(u)
	}
	v.Show(http.StatusOK, "people", v.T("Console users"), rows)
}

// askView is the body of the form for an invitation.
type askView struct {
	Name, Role, Error string
	Roles             []string
}

// ask shows the form.
func (p people) ask(v *console.Visit) {
	q := v.URL.Query()
	p.showAsk(v, http.StatusOK, q.Get("name"), q.Get("role"), "")
}

func (p people) showAsk(v *console.Visit, status int, name, role, wrong string) {
	if _, err := operate.ParseRole(role); err != nil {
		role = operate.Viewer.String()
	}
	v.Show(status, "asked", v.T("Invite somebody"), askView{clean(name), role, wrong, roles})
}

// onceView is the body of the page that shows a secret once.
type onceView struct {
	Title, Meaning string
	Label, Secret  string
	Facts          []string
	Warning        string
	Back           string
}

// invite makes a link and shows it.
func (p people) invite(v *console.Visit) {
	name, asked := strings.TrimSpace(v.PostForm.Get("name")), v.PostForm.Get("role")
	role, err := operate.ParseRole(asked)
	var link access.Link
	if err == nil {
		link, err = p.users.Invite(v.Context(), v.Actor(), name, role)
	} else {
		err = &operate.Error{Kind: operate.Invalid, Msg: err.Error()}
	}
	if text := v.Theirs(err); text != "" {
		p.showAsk(v, http.StatusUnprocessableEntity, name, asked, text)
		return
	}
	if err != nil {
		v.Refuse(err)
		return
	}
	v.Show(http.StatusOK, "once", v.T("The invitation of %s", clean(link.Name)), onceView{
		Title: v.T("The invitation of %s", clean(link.Name)),
		Meaning: v.T(
			"Give this link to that person alone, best by chat. It works once, for %s, and is not shown again.",
			v.Span(link.Expires.Sub(v.Now)+time.Second)),
		Label: v.T("Link"), Secret: link.URL, Back: peoplePath, Warning: onlyHere(v, link.URL)})
}

// onlyHere warns of a link that works on this machine alone, "" of any other.
func onlyHere(v *console.Visit, link string) string {
	u, err := url.Parse(link)
	if err != nil || !isHere(link) {
		return ""
	}
	host := u.Hostname()
	return v.T("The link works on this machine alone, since the console is at %s.", clean(host)) + " " +
		v.T("Write its address in the network as url in [console] of relay.toml, then make a new link.")
}

// isHere reports whether a link leads to the machine that follows it.
func isHere(link string) bool {
	u, err := url.Parse(link)
	return err == nil && local.Host(u.Hostname())
}

// find finds somebody by name.
func (p people) find(v *console.Visit, name string) (personRow, error) {
	users, err := p.users.List(v.Context(), v.Actor())
	if err != nil {
		return personRow{}, err
	}
	for _, u := range users {
		if u.Name == name {
			return rowOf(u), nil
		}
	}
	return personRow{}, store.ErrNoConsoleUser
}

// personView is the body of the page on which somebody is changed.
type personView struct {
	personRow
	Roles []string
	Own   bool // it is the visitor
	Error string
}

// show is the page on which somebody is changed.
func (p people) show(v *console.Visit) {
	p.change(v, v.URL.Query().Get("name"), http.StatusOK, "")
}

func (p people) change(v *console.Visit, name string, status int, wrong string) {
	row, err := p.find(v, name)
	if err != nil {
		p.refuse(v, name, err)
		return
	}
	v.Show(status, "person", row.Name, personView{row, roles, row.Name == clean(v.Actor().Name), wrong})
}

// refuse answers what cannot be done to somebody: on the page of that person where it is somebody's fault.
func (p people) refuse(v *console.Visit, name string, err error) {
	switch text := v.Theirs(err); {
	case errors.Is(err, store.ErrNoConsoleUser):
		v.Fail(http.StatusNotFound, v.T("Nobody has the name %s here.", clean(name)))
	case text != "":
		p.change(v, name, http.StatusConflict, text)
	default:
		v.Refuse(err)
	}
}

// setRole changes what somebody may.
func (p people) setRole(v *console.Visit) {
	name := v.PostForm.Get("name")
	role, err := operate.ParseRole(v.PostForm.Get("role"))
	if err != nil {
		v.Fail(http.StatusBadRequest, clean(err.Error()))
		return
	}
	if err := p.users.SetRole(v.Context(), v.Actor(), name, role); err != nil {
		p.refuse(v, name, err)
		return
	}
	v.Leave("The role of %s is changed. Whoever it is has to sign in again.", clean(name))
	v.Go(peoplePath)
}

// disable switches somebody off, or on again.
func (p people) disable(v *console.Visit) {
	name, off := v.PostForm.Get("name"), v.PostForm.Get("on") == ""
	if err := p.users.Disable(v.Context(), v.Actor(), name, off); err != nil {
		p.refuse(v, name, err)
		return
	}
	if off {
		v.Leave("%s is switched off, and signed out everywhere.", clean(name))
	} else {
		v.Leave("%s may sign in again.", clean(name))
	}
	v.Go(peoplePath)
}

// remove takes somebody away, after a confirmation.
func (p people) remove(v *console.Visit) {
	name := v.PostForm.Get("name")
	if v.PostForm.Get("confirmed") != "yes" {
		row, err := p.find(v, name)
		if err != nil {
			p.refuse(v, name, err)
			return
		}
		meaning := v.T("They are signed out everywhere; password and second factor are forgotten.")
		if row.OIDC {
			meaning = v.T("They come back with their next login at the provider. To keep them out, switch them off.")
		}
		v.Show(http.StatusOK, console.ConfirmSheet, v.T("Remove"), &console.Confirmation{
			Question: v.T("Remove %s?", row.Name), Meaning: meaning, Verb: v.T("Remove"), Danger: true,
			Action: peoplePath + "/remove", Back: row.Change, Fields: []console.Field{{Name: "name", Value: name}}})
		return
	}
	if err := p.users.Remove(v.Context(), v.Actor(), name); err != nil {
		p.refuse(v, name, err)
		return
	}
	v.Leave("%s is removed.", clean(name))
	v.Go(peoplePath)
}
