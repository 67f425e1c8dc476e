package door

import (
	"encoding/base64"
	"html/template"
	"net/http"

	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
	"postern/operate"
)

// account are the pages on which people change what is their own: whoever has a session may.
type account struct {
	access *access.Access
	door   *door
}

// accountView is the body of the page.
type accountView struct {
	Name, Role string
	OIDC       bool // password and factors are kept elsewhere
	Passkeys   bool // they can be used here
	App        bool
	Keys       []access.Passkey
	Sessions   []access.OpenSession
	Others     int // sessions but this one
}

// own makes a handler of what needs a session of the console.
func own(serve func(*console.Visit, *access.Session)) func(*console.Visit) {
	return func(v *console.Visit) {
		if s := session(v); s != nil {
			serve(v, s)
		}
	}
}

// strongly is own for the form of what asks for the second factor: before it is filled in.
func strongly(serve func(*console.Visit, *access.Session)) func(*console.Visit) {
	return own(func(v *console.Visit, s *access.Session) {
		if !v.Now.Before(s.StrongUntil) {
			v.Refuse(operate.ErrStrong)
			return
		}
		serve(v, s)
	})
}

// show is the page.
func (a account) show(v *console.Visit, s *access.Session) {
	sessions, err := a.access.Own.Sessions(v.Context(), s)
	if err != nil {
		v.Refuse(err)
		return
	}
	view := accountView{Name: clean(s.Name), Role: s.Role.String(), OIDC: s.ByOIDC, Passkeys: a.access.HasPasskeys(),
		App: s.HasCode, Keys: s.Passkeys(), Sessions: sessions}
	for _, each := range sessions {
		if !each.This {
			view.Others++
		}
	}
	v.Show(http.StatusOK, "account", v.T("Your account"), view)
}

// ownForm is the body of a form for a password, an authenticator or a passkey.
type ownForm struct {
	Name, Error string
	Field       string // where the error is: "old", "password", "code", ""
	Least       int    // characters of a password
	Label       string
	authenticatorView
}

// authenticatorView is an authenticator to be set up.
type authenticatorView struct {
	Secret  string       // in groups
	URI     template.URL // opens the authenticator on the device itself
	Picture template.URL // the same as a QR code
}

func viewAuthenticator(i access.Authenticator) (authenticatorView, error) {
	picture, err := i.QR(pixels)
	return authenticatorView{Secret: grouped(i.Secret),
		URI:     template.URL(i.URI), //nolint:gosec // made of our own secret, escaped by net/url
		Picture: template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(picture))}, err
}

// refuse shows a form again with what was wrong, or the error page for what is not the form's.
func (a account) refuse(v *console.Visit, sheet, title string, view ownForm, wrong error) {
	if view.Error = say(v, wrong); view.Error == "" {
		v.Refuse(wrong)
		return
	}
	if access.ReasonOf(wrong) == access.ReasonWrong {
		view.Error = v.T("The present password is wrong.")
	}
	v.Show(statusOf(v, wrong), sheet, title, view)
}

// changed gives the browser the cookie with which its session goes on after a change that ended the others.
func (a account) changed(v *console.Visit, cookie string) {
	if cookie != "" {
		access.SetSession(v.Writer, v.Request, cookie)
	}
	access.SetFlow(v.Writer, v.Request, "")
	v.Go(accountPath)
}

// askPassword shows the form for a new password.
func (a account) askPassword(v *console.Visit, s *access.Session) {
	v.Show(http.StatusOK, "ownpassword", v.T("Change the password"),
		ownForm{Name: clean(s.Name), Least: auth.MinChosen})
}

// setPassword takes it.
func (a account) setPassword(v *console.Visit, s *access.Session) {
	form := v.PostForm
	err := error(nil)
	cookie := ""
	if form.Get("password") != form.Get("repeat") {
		err = refusedFor(reasonRepeat)
	} else {
		cookie, err = a.access.Own.SetPassword(v.Context(), s, form.Get("old"), form.Get("password"), a.client(v))
	}
	if err != nil {
		view := ownForm{Name: clean(s.Name), Least: auth.MinChosen}
		switch access.ReasonOf(err) {
		case access.ReasonWrong:
			view.Field = "old"
		case access.ReasonPassword, reasonRepeat:
			view.Field = "password"
		}
		a.refuse(v, "ownpassword", v.T("Change the password"), view, err)
		return
	}
	v.Leave("The password is changed. All other sessions have ended.")
	a.changed(v, cookie)
}

// askApp shows an authenticator to be set up.
func (a account) askApp(v *console.Visit, s *access.Session) { a.showApp(v, s, nil) }

func (a account) showApp(v *console.Visit, s *access.Session, wrong error) {
	set, err := viewAuthenticator(a.access.Own.App(s))
	if err != nil {
		v.Refuse(err)
		return
	}
	view, title := ownForm{Name: clean(s.Name), authenticatorView: set}, v.T("Authenticator app")
	if wrong != nil {
		view.Field = "code"
		a.refuse(v, "ownapp", title, view, wrong)
		return
	}
	v.Show(http.StatusOK, "ownapp", title, view)
}

// setApp takes its first code.
func (a account) setApp(v *console.Visit, s *access.Session) {
	cookie, err := a.access.Own.SetApp(v.Context(), s, v.PostForm.Get("code"), a.client(v))
	if err != nil {
		a.showApp(v, s, err)
		return
	}
	v.Leave("The new authenticator app counts from now on. All other sessions have ended.")
	a.changed(v, cookie)
}

// askPasskey shows the form for another passkey.
func (a account) askPasskey(v *console.Visit, s *access.Session) {
	v.Show(http.StatusOK, "ownpasskey", v.T("Add a passkey"), ownForm{Name: clean(s.Name)})
}

// passkeyOptions is what a browser makes a passkey with.
func (a account) passkeyOptions(v *console.Visit, s *access.Session) {
	options, flow, err := a.access.Own.BeginPasskey(s, a.client(v))
	a.door.begin(v, options, flow, err)
}

// addPasskey takes what the browser made.
func (a account) addPasskey(v *console.Visit, s *access.Session) {
	label := v.PostForm.Get("label")
	err := a.access.Own.AddPasskey(v.Context(), s, access.FlowOf(v.Request), []byte(v.PostForm.Get("response")), label,
		a.client(v))
	if err != nil {
		a.refuse(v, "ownpasskey", v.T("Add a passkey"), ownForm{Name: clean(s.Name), Label: clean(label)}, err)
		return
	}
	v.Leave("The passkey is added. You can sign in with it from now on.")
	a.changed(v, "")
}

// namePasskey gives a passkey another name.
func (a account) namePasskey(v *console.Visit, s *access.Session) {
	err := a.access.Own.NamePasskey(v.Context(), s, v.PostForm.Get("id"), v.PostForm.Get("label"), a.client(v))
	if err != nil {
		a.fail(v, err)
		return
	}
	v.Leave("The name is changed.")
	v.Go(accountPath)
}

// askRemoval asks whether a passkey is to be removed. It is a page of its own, since the second factor comes before.
func (a account) askRemoval(v *console.Visit, s *access.Session) {
	id := v.URL.Query().Get("id")
	for _, key := range s.Passkeys() {
		if key.ID != id {
			continue
		}
		v.Show(http.StatusOK, console.ConfirmSheet, v.T("Remove"), &console.Confirmation{
			Question: v.T("Remove the passkey %s?", key.Label), Verb: v.T("Remove"), Danger: true,
			Meaning: v.T("Nobody can sign in with it any more, and all other sessions end."),
			Action:  removePath, Back: accountPath, Fields: []console.Field{{Name: "id", Value: id}}})
		return
	}
	a.fail(v, refusedFor(access.ReasonNoSuch))
}

// removePasskey takes a passkey away.
func (a account) removePasskey(v *console.Visit, s *access.Session) {
	id := v.PostForm.Get("id")
	cookie, err := a.access.Own.RemovePasskey(v.Context(), s, id, a.client(v))
	if err != nil {
		a.fail(v, err)
		return
	}
	v.Leave("The passkey is removed. All other sessions have ended.")
	a.changed(v, cookie)
}

// endSession ends one session, or all others. Ending one's own is signing out.
func (a account) endSession(v *console.Visit, s *access.Session) {
	err := a.access.Own.EndSession(v.Context(), s, v.PostForm.Get("id"), a.client(v))
	if err != nil {
		a.fail(v, err)
		return
	}
	v.Leave("The session has ended.")
	v.Go(accountPath)
}

func (a account) endOthers(v *console.Visit, s *access.Session) {
	if err := a.access.Own.EndOthers(v.Context(), s, a.client(v)); err != nil {
		v.Refuse(err)
		return
	}
	v.Leave("All other sessions have ended.")
	v.Go(accountPath)
}

// fail answers what is no form's fault.
func (a account) fail(v *console.Visit, err error) {
	if text := say(v, err); text != "" {
		v.Fail(statusOf(v, err), text)
		return
	}
	v.Refuse(err)
}

func (a account) client(v *console.Visit) string { return access.ClientOf(v.Request) }

// routes are the pages and forms of one's own account. They need a session and no role.
func (a account) routes() (all []console.Route) {
	add := func(method, path string, serve func(*console.Visit)) {
		all = append(all, console.Route{Method: method, Path: path, Under: accountPath, Serve: serve})
	}
	get, post := http.MethodGet, http.MethodPost
	add(get, accountPath, own(a.show))
	add(get, accountPath+"/password", strongly(a.askPassword))
	add(post, accountPath+"/password", own(a.setPassword))
	add(get, accountPath+"/app", strongly(a.askApp))
	add(post, accountPath+"/app", own(a.setApp))
	add(get, accountPath+"/passkey", strongly(a.askPasskey))
	add(post, accountPath+"/passkey", own(a.addPasskey))
	add(post, accountPath+"/passkey"+optionsPath, own(a.passkeyOptions))
	add(post, accountPath+"/passkey/name", own(a.namePasskey))
	add(get, removePath, strongly(a.askRemoval))
	add(post, removePath, own(a.removePasskey))
	add(post, accountPath+"/session/end", own(a.endSession))
	add(post, accountPath+"/session/others", own(a.endOthers))
	return all
}

// removePath is where a passkey's removal is asked about.
const removePath = accountPath + "/passkey/remove"
