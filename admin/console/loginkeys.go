package console

import (
	"strings"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/operate"
)

// keyActionsOfLogin are what may be done to the keys that prove a login.
var keyActionsOfLogin = []action{
	{path: "/logins/act/pin", needs: operate.EditAccount, do: pinKey},
	{path: "/logins/act/unpin", needs: operate.EditAccount, do: unpinKey, sheet: "confirm", title: "Login"},
}

// loginWays are the ways in which an account logs in.
type loginWays struct {
	Ways []loginWay
	Keys []operate.Pinned
	// External reports that a listener takes keys, or there are some.
	External bool
	KeyForm  keyForm
	Apps     []loginApp
	Sight    operate.Sighting // of a device
}

// loginWay is a mechanism, in words.
type loginWay struct {
	operate.Mechanism
	Icon, Word string
	Say        Said // why not, or more of it
}

// keyForm is a key that somebody pastes.
type keyForm struct{ Text, Problem string }

// ways adds how the account can log in, and what was last seen of a device.
func (l *loginView) ways(v *visit) error {
	shown, err := v.console.Operations.Accounts.Show(v.Context(), v.actor, operate.Everybody, l.Login)
	if err != nil {
		return err
	}
	l.Keys, l.Apps = shown.Certificates, loginAppsOf(shown.AppPasswords, time.Now())
	l.External = len(l.Keys) > 0
	for _, m := range shown.Mechanisms {
		l.Ways, l.External = append(l.Ways, loginWayOf(v, m)), l.External || m.Name == auth.External
	}
	if !l.Device {
		return nil
	}
	if l.Sight, err = v.console.Operations.Devices.Sighting(v.Context(), v.actor, l.User); err != nil {
		return err
	}
	if l.Trouble != nil && !l.Sight.FaultAt.After(l.Trouble.Time) {
		l.Sight.Fault, l.Sight.FaultAt = "", time.Time{} // it is the same
	}
	return nil
}

// loginWayOf says whether an account can use a mechanism, and why not.
func loginWayOf(v *visit, m operate.Mechanism) loginWay {
	w := loginWay{Mechanism: m, Icon: "ok", Word: v.t("works"), Say: v.said(plain(400, m.Detail))}
	if !m.Can {
		w.Icon, w.Word, w.Say = "info", v.t("does not work"), v.said(plain(400, m.Why))
	}
	w.Say.Text = capital(w.Say.Text)
	return w
}

// pinKey has a key prove a login. What was pasted wrong comes back with the reason.
func pinKey(v *visit) (string, any, error) {
	login, back := askedLogin(v)
	text := v.PostForm.Get("key")
	_, err := v.console.Operations.ClientCertificates.Pin(v.Context(), v.actor, operate.Everybody, login, []byte(text))
	if kind, theirs := operate.KindOf(err); theirs && kind != operate.NotFound {
		view, showErr := viewLogin(v, login)
		if showErr != nil {
			return "", nil, showErr
		}
		view.External, view.KeyForm.Problem = true, plain(1000, err)
		if !strings.Contains(text, "PRIVATE KEY") { // that is not shown again
			view.KeyForm.Text = plainLines(maxList, text)
		}
		return "", view, nil
	}
	if err != nil {
		return "", nil, err
	}
	v.leave("The key proves %s from now on.", login)
	return back + "#keys", nil, nil
}

func unpinKey(v *visit) (string, any, error) {
	login, back := askedLogin(v)
	key := mail.Cut(v.PostForm.Get("key"), maxFilter)
	if !v.confirmed() {
		c := ofLogin(login, back, "/logins/act/unpin", field{"key", key})
		c.Question, c.Verb, c.Danger = v.t("Remove this key of %s?", plain(120, login)), v.t("Remove"), true
		c.Meaning = v.t("Whoever has it cannot log in with it any more, and open connections end. Its passwords stay.")
		c.Sample = []sample{{Text: plain(120, key)}}
		return "", &c, nil
	}
	err := v.console.Operations.ClientCertificates.UnpinKey(v.Context(), v.actor, operate.Everybody, login, key)
	if err != nil {
		return "", nil, err
	}
	v.leave("The key of %s is removed.", login)
	return back + "#keys", nil, nil
}
