package selfservice

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
	"postern/mail"
	"postern/operate"
)

// maxLogin bounds a user name that a page shows again, in octets.
const maxLogin = 320

// The reasons of this page beside those of package access.
const (
	reasonDown    access.Reason = "source-down"
	reasonNoLogin access.Reason = "no-login" // the provider says no user name that can be one
	reasonUnfit   access.Reason = "unfit"    // what the provider says cannot be kept
)

// logins are the ways in, and out.
type logins struct{ *Server }

// enterView is the body of the login page.
type enterView struct {
	Login, Error string
	Info         string // why the session ended
	Password     bool   // there are sources of passwords
	OIDC         string // where a login by OpenID Connect begins, "" where there is none
	Office       string // "": it has no name
}

func (s logins) enterView(login string) enterView {
	c := s.Config()
	view := enterView{Login: mail.Cut(mail.Printable(login), maxLogin), Password: len(c.SelfService.Sources) > 0}
	if c.SelfService.OIDC != nil {
		view.OIDC = startPath
	}
	if c.Autoconfig.On() {
		view.Office = c.Autoconfig.Name
	}
	return view
}

// showLogin is the login page. Whoever is signed in is led on.
func (s logins) showLogin(v *console.Visit) {
	if busy, _ := v.Context().Value(busyKey).(bool); busy {
		s.turnAway(v, "", &access.Refusal{Reason: access.ReasonBusy})
		return
	}
	if visitorOf(v.Context()) != nil {
		v.Go(home)
		return
	}
	view := s.enterView("")
	switch access.Reason(v.URL.Query().Get("why")) { // others are of our own pages' answers
	case access.ReasonIdle:
		view.Info = v.T("You were signed out after 30 minutes without use.")
	case access.ReasonOver:
		view.Info = v.T("You were signed out after 12 hours.")
	}
	v.Show(http.StatusOK, "myenter", v.T("Passwords for devices and mail programs"), view)
}

// login takes user name and password.
func (s logins) login(v *console.Visit) {
	login, client := v.PostForm.Get("login"), access.AddrOf(v.Request)
	p, err := s.verify(v.Context(), login, v.PostForm.Get("password"), client)
	if err == nil {
		err = s.enter(v, p)
	}
	if err != nil {
		s.turnAway(v, login, err)
		return
	}
	v.Go(home)
}

// verify asks the relay's own sources who has a login and password.
func (s logins) verify(ctx context.Context, login, password string, client netip.Addr) (operate.Person, error) {
	refuse := func(reason access.Reason, err error) (operate.Person, error) {
		return operate.Person{}, &access.Refusal{Reason: reason, Err: err}
	}
	sources := s.Config().SelfService.Sources
	if len(sources) == 0 {
		return refuse(access.ReasonWrong, errors.New("there are no sources in [self_service]"))
	}
	id, err := s.Logins.AuthenticateBy(ctx, login, password, client, sources...)
	reply, _ := mail.ReplyFor(err)
	name, _ := auth.NormalizeLogin(login)
	switch until := s.Logins.LockedUntil(name, client); {
	case err == nil:
		return operate.Person{Login: id.Login, Groups: id.Groups, Source: id.Source}, nil
	case errors.Is(err, auth.ErrBusy):
		return refuse(access.ReasonBusy, err)
	case !reply.Permanent():
		return refuse(reasonDown, err)
	case !until.IsZero():
		return operate.Person{}, &access.Refusal{Reason: access.ReasonLockedOut, Until: until, Err: err}
	}
	return refuse(access.ReasonWrong, err)
}

// beginOIDC sends the browser to the provider.
func (s logins) beginOIDC(v *console.Visit) {
	to, flow, err := s.OIDC.Begin(v.Context())
	if err != nil {
		s.turnAway(v, "", err)
		return
	}
	flowCookie.Set(v.Writer, v.Request, flow, access.FlowFor)
	http.Redirect(v.Writer, v.Request, to, http.StatusSeeOther)
}

// finishOIDC is where the provider sends the browser back to.
func (s logins) finishOIDC(v *console.Visit) {
	p, err := s.vouched(v)
	if err == nil {
		err = s.enter(v, p)
	}
	if err != nil {
		s.turnAway(v, "", err)
		return
	}
	v.Go(home)
}

// vouched is whom the provider names.
func (s logins) vouched(v *console.Visit) (p operate.Person, err error) {
	o := s.Config().SelfService.OIDC
	if o == nil {
		return p, &access.Refusal{Reason: access.ReasonOIDC, Err: errors.New("there is no [self_service.oidc]")}
	}
	want := slices.DeleteFunc([]string{o.LoginClaim, o.GroupsClaim, o.SendersClaim},
		func(name string) bool { return name == "" })
	issuer, said, err := s.OIDC.Finish(v.Context(), flowCookie.Of(v.Request), v.URL.Query(), want...)
	if err != nil {
		return p, err
	}
	login, err := auth.CheckProvided(said.Text(o.LoginClaim))
	if err != nil {
		return p, &access.Refusal{Reason: reasonNoLogin, Err: err}
	}
	return operate.Person{Login: login, Name: said.Text("name"), Groups: said.Texts(o.GroupsClaim),
		Senders: said.Texts(o.SendersClaim), Source: operate.OIDCSource, Issuer: issuer, Subject: said.Subject}, nil
}

// enter enrols who has proved who they are, and opens their session.
func (s logins) enter(v *console.Visit, p operate.Person) error {
	by := operate.Actor{Name: p.Login, Channel: operate.SelfService, Client: access.ClientOf(v.Request)}
	known, err := s.Operations.AppPasswords.Enrol(v.Context(), by, p)
	kind, theirs := operate.KindOf(err)
	switch {
	case errors.Is(err, operate.ErrForbidden):
		return &access.Refusal{Reason: access.ReasonOIDCGroups, Err: err}
	case theirs && kind == operate.Conflict:
		return &access.Refusal{Reason: access.ReasonOIDCName, Err: err}
	case theirs:
		return &access.Refusal{Reason: reasonUnfit, Err: err}
	case err != nil:
		return err
	}
	if err := s.open(v.Writer, v.Request, known); err != nil {
		return err
	}
	s.Logger.Info("self-service: logged in", "login", known.Login, "source", p.Source, "client", by.Client)
	return nil
}

// turnAway shows the login page with the reason.
func (s logins) turnAway(v *console.Visit, login string, err error) {
	refusal, ok := errors.AsType[*access.Refusal](err)
	if !ok {
		v.Refuse(err)
		return
	}
	s.Logger.Warn("self-service: refused", "login", mail.Cut(mail.Printable(login), maxLogin),
		"client", access.ClientOf(v.Request), "reason", mail.Cut(mail.Printable(string(refusal.Reason)+": "+
			refusal.Error()), 500))
	view := s.enterView(login)
	view.Error = say(v, *refusal)
	v.Show(status(v, *refusal), "myenter", v.T("Passwords for devices and mail programs"), view)
}

// say is why somebody is kept out, in their language.
func say(v *console.Visit, r access.Refusal) string {
	switch r.Reason {
	case access.ReasonWrong:
		return v.T("The user name or the password is wrong.")
	case access.ReasonLockedOut:
		return v.T("Too many wrong attempts. Try again in %s.", v.Span(r.Until.Sub(v.Now)+time.Minute))
	case access.ReasonBusy:
		return v.T("Too many logins at once. Wait a minute and try again.")
	case access.ReasonFlow:
		return v.T("That took too long, or the browser keeps no cookies. Begin again.")
	case access.ReasonDisabled:
		return v.T("Your login is locked. Ask whoever looks after your mail.")
	case access.ReasonOIDC:
		return v.T("The answer of your organisation's login cannot be used. Begin again.")
	case access.ReasonOIDCDown:
		return v.T("Your organisation's login does not answer. Try again in some minutes.")
	case access.ReasonOIDCGroups:
		return v.T("You are known, but you belong to no group that may make passwords here. Ask whoever looks after " +
			"your mail.")
	case access.ReasonOIDCName:
		return v.T("Your user name belongs to somebody else here, or you had another one before. Ask whoever looks " +
			"after your mail; the relay's log says what to do.")
	case reasonDown:
		return v.T("Your password cannot be checked now: the office's directory does not answer. Try again in some " +
			"minutes. Nothing is wrong with what you typed.")
	case reasonNoLogin:
		return v.T("Your organisation's account has no user name that can be used here. Ask whoever looks after your " +
			"mail.")
	}
	return v.T("You cannot make passwords here. Ask whoever looks after your mail; the relay's log says why.")
}

// status is that of an answer to somebody who is kept out.
func status(v *console.Visit, r access.Refusal) int {
	switch r.Reason {
	case access.ReasonLockedOut, access.ReasonBusy:
		if wait := r.Until.Sub(v.Now); wait > 0 {
			v.Writer.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		}
		return http.StatusTooManyRequests
	case reasonDown:
		return http.StatusServiceUnavailable
	case access.ReasonOIDCDown:
		return http.StatusBadGateway
	}
	return http.StatusForbidden
}

// logout ends the session.
func (s logins) logout(v *console.Visit) {
	if who := visitorOf(v.Context()); who != nil {
		if err := s.Store.EndPersonSession(v.Context(), who.digest); err != nil {
			v.Refuse(err)
			return
		}
	}
	sessionCookie.Set(v.Writer, v.Request, "", 0)
	v.Leave("You are signed out.")
	v.Go(loginPath)
}
