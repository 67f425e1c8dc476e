package selfservice

import (
	"net/http"
	"net/url"
	"time"

	"postern/admin/console"
	"postern/mail"
	"postern/operate"
)

// soon is when the list points out that a password ends.
const soon = 14 * 24 * time.Hour

// passwords are the pages of somebody who is signed in.
type passwords struct{ *Server }

// listView is the body of the list.
type listView struct {
	Rows []row
	Room bool // there may be more
}

// row is a password in the list.
type row struct {
	operate.AppPassword
	Over, Soon bool // it has ended, or will
}

// Places are the networks, those of one address as the address.
func (r row) Places() (all []string) {
	for _, n := range r.Networks {
		if n.IsSingleIP() {
			all = append(all, n.Addr().String())
		} else {
			all = append(all, n.String())
		}
	}
	return all
}

func (s passwords) list(v *console.Visit, who *visitor) {
	found, err := s.Operations.AppPasswords.List(v.Context(), who.actor, who.person.Login)
	if err != nil {
		v.Refuse(err)
		return
	}
	view, good := listView{}, 0
	for _, k := range found {
		r := row{AppPassword: k, Over: k.Expired(v.Now), Soon: k.Expires.Sub(v.Now) < soon}
		if !r.Over {
			good++
		}
		view.Rows = append(view.Rows, r)
	}
	view.Room = good < s.Config().SelfService.MaxPasswords
	v.Show(http.StatusOK, "mypasswords", v.T("Your passwords"), view)
}

// find returns a password of somebody's own; false: it is gone, and they are told so.
func (s passwords) find(v *console.Visit, who *visitor, id string) (operate.AppPassword, bool) {
	found, err := s.Operations.AppPasswords.List(v.Context(), who.actor, who.person.Login)
	if err != nil {
		v.Refuse(err)
		return operate.AppPassword{}, false
	}
	for _, k := range found {
		if k.ID == id {
			return k, true
		}
	}
	s.gone(v)
	return operate.AppPassword{}, false
}

func (s passwords) gone(v *console.Visit) {
	v.Leave("This password is gone already.")
	v.Go(home)
}

// confirm is the step before a password is revoked.
func (s passwords) confirm(v *console.Visit, who *visitor) {
	k, ok := s.find(v, who, v.URL.Query().Get("id"))
	if !ok {
		return
	}
	c := &console.Confirmation{Question: v.T("Revoke the password for %s?", mail.Printable(k.Name)),
		Meaning: v.T("Whatever uses it cannot send mail any more, and its open connections end. This cannot be " +
			"undone: make a new password if it is needed again."),
		Verb: v.T("Revoke"), Danger: true, Action: revokePath, Back: home,
		Fields: []console.Field{{Name: "id", Value: k.ID}}}
	v.Show(http.StatusOK, console.ConfirmSheet, c.Question, c)
}

// revoke ends a password.
func (s passwords) revoke(v *console.Visit, who *visitor) {
	id := v.PostForm.Get("id")
	if v.PostForm.Get("confirmed") != "yes" {
		v.Go(revokePath + "?" + url.Values{"id": {mail.Cut(id, maxLogin)}}.Encode())
		return
	}
	k, ok := s.find(v, who, id)
	if !ok {
		return
	}
	err := s.Operations.AppPasswords.Revoke(v.Context(), who.actor, who.person.Login, k.ID)
	if kind, theirs := operate.KindOf(err); theirs && kind == operate.NotFound {
		s.gone(v)
		return
	}
	if err != nil {
		v.Refuse(err)
		return
	}
	v.Leave("The password for %s is revoked.", k.Name)
	v.Go(home)
}
