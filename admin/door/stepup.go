package door

import (
	"net/http"
	"net/url"

	"postern/admin/access"
	"postern/admin/console"
)

// factorView is the body of the page that asks for the second factor again.
type factorView struct {
	Next, Error   string
	Code, Passkey bool
	OIDC          string // where the provider is asked again, "" for others
}

// session is that of the visitor, who is sent to the login without one.
func session(v *console.Visit) *access.Session {
	s := access.SessionOf(v.Context())
	if s == nil {
		v.Go(access.LoginPath)
	}
	return s
}

// showStepUp asks for the second factor, unless it was given just now.
func (d *door) showStepUp(v *console.Visit) {
	next := access.LocalPath(v.URL.Query().Get("next"))
	switch s := session(v); {
	case s == nil:
	case v.Now.Before(s.StrongUntil):
		v.Go(next)
	default:
		d.askFactor(v, s, next, nil)
	}
}

func (d *door) askFactor(v *console.Visit, s *access.Session, next string, wrong error) {
	view := factorView{Next: access.LocalPath(next), Code: s.HasCode, Passkey: s.HasPasskey && d.access.HasPasskeys()}
	if s.ByOIDC && d.access.HasOIDC() {
		view.OIDC = oidcStartPath + "?" + url.Values{"next": {view.Next}, "again": {"1"}}.Encode()
	}
	code := http.StatusOK
	if wrong != nil {
		if view.Error = say(v, wrong); view.Error == "" {
			v.Refuse(wrong)
			return
		}
		if access.ReasonOf(wrong) == access.ReasonWrong {
			view.Error = v.T("The code is wrong, or was used already. Type the next one.")
		}
		code = statusOf(v, wrong)
	}
	v.Show(code, "factor", v.T("Is it you?"), view)
}

// stepUp takes a code or what a passkey signed.
func (d *door) stepUp(v *console.Visit) {
	s := session(v)
	if s == nil {
		return
	}
	client, next := access.ClientOf(v.Request), access.LocalPath(v.PostForm.Get("next"))
	var cookie string
	var err error
	if response := v.PostForm.Get("response"); response != "" {
		cookie, err = d.access.Passkeys.FinishStepUp(v.Context(), s, access.FlowOf(v.Request), []byte(response), client)
	} else {
		cookie, err = d.access.Logins.StepUp(v.Context(), s, v.PostForm.Get("code"), client)
	}
	if err != nil {
		d.askFactor(v, s, next, err)
		return
	}
	access.SetSession(v.Writer, v.Request, cookie)
	access.SetFlow(v.Writer, v.Request, "")
	v.Go(next)
}

// stepUpOptions is what a browser asks a passkey for.
func (d *door) stepUpOptions(v *console.Visit) {
	if s := session(v); s != nil {
		options, flow, err := d.access.Passkeys.BeginStepUp(v.Context(), s)
		d.begin(v, options, flow, err)
	}
}
