package door

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"postern/admin/access"
	"postern/admin/console"
)

// enterView is the body of the login page.
type enterView struct {
	Name, Next string
	Error      string
	Info       string // why the session ended
	Passkeys   bool
	OIDC       string // where a login by OpenID Connect begins, "" where there is none
}

func (d *door) enterView(v *console.Visit, name, next string) enterView {
	view := enterView{Name: clean(name), Next: access.LocalPath(next), Passkeys: d.access.HasPasskeys()}
	if d.access.HasOIDC() {
		view.OIDC = oidcStartPath + "?" + url.Values{"next": {view.Next}}.Encode()
	}
	return view
}

// showLogin is the login page. Whoever is signed in is led on.
func (d *door) showLogin(v *console.Visit) {
	q := v.URL.Query()
	if busy, _ := v.Context().Value(busyKey{}).(bool); busy {
		d.turnAway(v, "", "", refusedFor(access.ReasonBusy))
		return
	}
	if access.SessionOf(v.Context()) != nil {
		v.Go(access.LocalPath(q.Get("next")))
		return
	}
	view := d.enterView(v, "", q.Get("next"))
	switch why := access.Reason(q.Get("why")); why { // others are of our own pages' answers
	case access.ReasonIdle, access.ReasonOver:
		view.Info = say(v, refusedFor(why))
	}
	v.Show(http.StatusOK, "enter", v.T("Sign in"), view)
}

// login takes name, password and code.
func (d *door) login(v *console.Visit) {
	name, next := v.PostForm.Get("name"), v.PostForm.Get("next")
	who := access.Credentials{Name: name, Password: v.PostForm.Get("password"), Code: v.PostForm.Get("code")}
	cookie, err := d.access.Logins.Login(v.Context(), who, access.ClientOf(v.Request))
	d.entered(v, cookie, name, next, err)
}

// entered ends a login: with a session, or with the page that says why not.
func (d *door) entered(v *console.Visit, cookie, name, next string, err error) {
	if err != nil {
		d.turnAway(v, name, next, err)
		return
	}
	d.open(v, cookie)
	v.Go(access.LocalPath(next))
}

// open gives the browser its session. One that it had before ends.
func (d *door) open(v *console.Visit, cookie string) {
	if before := access.SessionOf(v.Context()); before != nil {
		if err := d.access.Logins.Logout(v.Context(), before, access.ClientOf(v.Request)); err != nil {
			d.log.Error("console: the session before a login did not end", "name", before.Name, "err", err)
		}
	}
	access.SetSession(v.Writer, v.Request, cookie)
	access.SetFlow(v.Writer, v.Request, "")
}

// turnAway shows the login page with the reason.
func (d *door) turnAway(v *console.Visit, name, next string, err error) {
	text := say(v, err)
	if text == "" {
		v.Refuse(err)
		return
	}
	view := d.enterView(v, name, next)
	view.Error = text
	v.Show(statusOf(v, err), "enter", v.T("Sign in"), view)
}

// loginOptions is what a browser asks a passkey for.
func (d *door) loginOptions(v *console.Visit) {
	options, flow, err := d.access.Passkeys.Begin(v.Context(), v.PostForm.Get("name"))
	d.begin(v, options, flow, err)
}

// begin answers the script of a page with a passkey.
func (d *door) begin(v *console.Visit, options json.RawMessage, flow string, err error) {
	h := v.Writer.Header()
	h.Set("Content-Type", "application/json")
	if err != nil {
		text := say(v, err)
		if text == "" {
			d.log.Error("console: a passkey cannot be asked for", "err", err)
			text = v.T("Something went wrong on the relay. Its log has the details; mail is not affected.")
		}
		v.Writer.WriteHeader(statusOf(v, err))
		options, _ = json.Marshal(map[string]string{"error": text})
	} else {
		access.SetFlow(v.Writer, v.Request, flow)
	}
	_, _ = v.Writer.Write(options) // whoever asked has left
}

// loginPasskey takes what a passkey signed.
func (d *door) loginPasskey(v *console.Visit) {
	cookie, err := d.access.Passkeys.Finish(v.Context(), access.FlowOf(v.Request), []byte(v.PostForm.Get("response")),
		access.ClientOf(v.Request))
	d.entered(v, cookie, v.PostForm.Get("name"), v.PostForm.Get("next"), err)
}

// beginOIDC sends the browser to the provider: with "again" to give the second factor.
func (d *door) beginOIDC(v *console.Visit) {
	var session *access.Session
	q := v.URL.Query()
	if q.Get("again") != "" {
		session = access.SessionOf(v.Context())
	}
	to, flow, err := d.access.OIDC.Begin(v.Context(), session, q.Get("next"))
	if err != nil {
		d.turnAway(v, "", q.Get("next"), err)
		return
	}
	access.SetFlow(v.Writer, v.Request, flow)
	http.Redirect(v.Writer, v.Request, to, http.StatusSeeOther)
}

// finishOIDC is where the provider sends the browser back to.
func (d *door) finishOIDC(v *console.Visit) {
	session := access.SessionOf(v.Context())
	cookie, next, err := d.access.OIDC.Finish(v.Context(), session, access.FlowOf(v.Request), v.URL.Query(),
		access.ClientOf(v.Request))
	switch {
	case err == nil:
		access.SetSession(v.Writer, v.Request, cookie)
		access.SetFlow(v.Writer, v.Request, "")
		v.Go(access.LocalPath(next))
	case session != nil:
		d.askFactor(v, session, next, err)
	default:
		d.turnAway(v, "", next, err)
	}
}

// logout ends the session.
func (d *door) logout(v *console.Visit) {
	if s := access.SessionOf(v.Context()); s != nil {
		if err := d.access.Logins.Logout(v.Context(), s, access.ClientOf(v.Request)); err != nil {
			v.Refuse(err)
			return
		}
	}
	access.SetSession(v.Writer, v.Request, "")
	v.Leave("You are signed out.")
	v.Go(access.LoginPath)
}

// statusOf is the status of an answer to somebody who is kept out.
func statusOf(v *console.Visit, err error) int {
	refusal, _ := asRefusal(err)
	switch refusal.Reason {
	case access.ReasonLockedOut, access.ReasonBusy:
		if wait := refusal.Until.Sub(v.Now); wait > 0 {
			v.Writer.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		}
		return http.StatusTooManyRequests
	case access.ReasonPassword, access.ReasonCode, access.ReasonNoFactor, access.ReasonNoPasskeys, reasonRepeat,
		access.ReasonTooMany:
		return http.StatusUnprocessableEntity
	case access.ReasonLastWay, access.ReasonProvider:
		return http.StatusConflict
	case access.ReasonLinkUnknown, access.ReasonNoSuch:
		return http.StatusNotFound
	case access.ReasonLinkUsed, access.ReasonLinkExpired, access.ReasonLinkReplaced:
		return http.StatusGone
	case access.ReasonOIDCDown:
		return http.StatusBadGateway
	case "":
		return http.StatusInternalServerError
	}
	return http.StatusForbidden
}
