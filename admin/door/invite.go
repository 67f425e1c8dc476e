package door

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
)

// guests are the pages behind the link of an invitation.
type guests struct {
	access *access.Access
	door   *door
}

// inviteView is the body of the page behind a link.
type inviteView struct {
	Name, Role string
	Expires    time.Time
	Path       string // of the form: the link itself
	Least      int    // characters of a password
	Error      string
	Field      string // where the error is: "password", "code", ""
	Kept       string // the password, sealed, when only the second factor is asked for again
	Passkeys   bool
	authenticatorView
}

// lostView is the body of the page that a link leads to which does not work.
type lostView struct{ What, Do string }

// pixels is the size of the QR code; twice what the page gives it, for dense screens.
const pixels = 400

// hush keeps the address of the page, which is a secret, from every other place.
func hush(v *console.Visit) { v.Writer.Header().Set("Referrer-Policy", "no-referrer") }

// show shows an invitation, and uses nothing up.
func (g guests) show(v *console.Visit) {
	hush(v)
	g.invitation(v, nil, "")
}

// invitation shows the page behind a link, with what was wrong before; the password that was kept is not asked again.
func (g guests) invitation(v *console.Visit, wrong error, kept string) {
	token := v.PathValue("token")
	i, err := g.access.Invitations.Get(v.Context(), token)
	if err != nil {
		lost(v, err)
		return
	}
	set, err := viewAuthenticator(i.Authenticator)
	if err != nil {
		v.Refuse(err)
		return
	}
	view := inviteView{Name: clean(i.Name), Role: i.Role.String(), Expires: i.Expires, Path: access.InvitePath + token,
		Least: auth.MinChosen, Kept: kept, Passkeys: g.access.HasPasskeys(), authenticatorView: set}
	code := http.StatusOK
	if wrong != nil {
		if view.Error = say(v, wrong); view.Error == "" {
			v.Refuse(wrong)
			return
		}
		code = statusOf(v, wrong)
		switch access.ReasonOf(wrong) {
		case access.ReasonPassword, reasonRepeat:
			view.Field = "password"
		case access.ReasonCode, access.ReasonNoFactor:
			view.Field = "code"
		}
	}
	v.Show(code, "invite", v.T("Welcome"), view)
}

// grouped is a secret as one types it from a screen.
func grouped(secret string) string {
	var groups []string
	for len(secret) > 4 {
		groups, secret = append(groups, secret[:4]), secret[4:]
	}
	return strings.Join(append(groups, secret), " ")
}

// lost says why a link does not work, and what to do.
func lost(v *console.Visit, err error) {
	var view lostView
	switch access.ReasonOf(err) {
	case access.ReasonLinkUsed:
		view = lostView{v.T("This link was used already. It works only once."),
			v.T("If it was you: sign in. If not, tell whoever manages the console at once, and ask for a new link.")}
	case access.ReasonLinkExpired:
		view = lostView{v.T("This link has expired. It works for 15 minutes."),
			v.T("Ask whoever sent it for a new one, and open that within 15 minutes.")}
	case access.ReasonLinkReplaced:
		view = lostView{v.T("A newer link took the place of this one."),
			v.T("Open the newest link that you were sent.")}
	case access.ReasonLinkUnknown:
		view = lostView{v.T("This link is not known here."),
			v.T("Copy it whole, without a line break. If that does not help, ask whoever sent it for a new one.")}
	default:
		v.Refuse(err)
		return
	}
	v.Show(statusOf(v, err), "lost", v.T("This link does not work"), view)
}

// accept takes password and second factor.
func (g guests) accept(v *console.Visit) {
	hush(v)
	got := access.Acceptance{Password: v.PostForm.Get("password"), Kept: v.PostForm.Get("kept"),
		Code: v.PostForm.Get("code"), Flow: access.FlowOf(v.Request)}
	if response := v.PostForm.Get("response"); response != "" {
		got.Passkey = json.RawMessage(response)
	}
	if got.Password != v.PostForm.Get("repeat") {
		g.invitation(v, refusedFor(reasonRepeat), "")
		return
	}
	cookie, err := g.access.Invitations.Accept(v.Context(), v.PathValue("token"), got, access.ClientOf(v.Request))
	if err != nil {
		kept, err := g.keep(v, got, err)
		g.invitation(v, err, kept)
		return
	}
	g.door.open(v, cookie)
	v.Leave("You are signed in. From now on, sign in with your name, the password and the second factor.")
	v.Go("/")
}

// keep returns the password for the next try when only the second factor was refused, and what to say: a password that
// cannot be taken either is said now, not after the next code.
func (g guests) keep(v *console.Visit, got access.Acceptance, wrong error) (kept string, say error) {
	switch access.ReasonOf(wrong) {
	case access.ReasonCode, access.ReasonNoFactor, access.ReasonPasskey:
	default:
		return "", wrong
	}
	if got.Password == "" {
		return got.Kept, wrong
	}
	kept, err := g.access.Invitations.Keep(v.Context(), v.PathValue("token"), got.Password)
	if err != nil {
		return "", err
	}
	return kept, wrong
}

// options is what a browser makes a passkey with.
func (g guests) options(v *console.Visit) {
	hush(v)
	options, flow, err := g.access.Invitations.BeginPasskey(v.Context(), v.PathValue("token"))
	g.door.begin(v, options, flow, err)
}
