package console

import (
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
)

// appActionsOfLogin are what may be done to the app passwords of a login.
var appActionsOfLogin = []action{
	{path: "/logins/act/revoke", needs: operate.RevokeAppPassword, do: revokeApp, sheet: "confirm", title: "Login"},
}

// loginApp is an app password of a login.
type loginApp struct {
	operate.AppPassword
	Over   bool     // it has expired
	Places []string // from where alone it works
}

// loginAppsOf are those of a login.
func loginAppsOf(list []operate.AppPassword, now time.Time) (apps []loginApp) {
	for _, k := range list {
		a := loginApp{AppPassword: k, Over: k.Expired(now)}
		if len(k.Networks) > 0 {
			a.Places = strings.Split(networkLines(k.Networks), "\n")
		}
		apps = append(apps, a)
	}
	return apps
}

// revokeApp ends one app password of a login.
func revokeApp(v *visit) (string, any, error) {
	login, back := askedLogin(v)
	id := mail.Cut(v.PostForm.Get("id"), maxFilter)
	list, err := v.console.Operations.AppPasswords.List(v.Context(), v.actor, login)
	if err != nil {
		return "", nil, err
	}
	name := id
	for _, k := range list {
		if k.ID == id {
			name = plain(120, k.Name)
		}
	}
	if !v.confirmed() {
		c := ofLogin(login, back+"#apps", "/logins/act/revoke", field{"id", id})
		c.Question, c.Verb, c.Danger = v.t("Revoke the password for %s?", name), v.t("Revoke"), true
		c.Meaning = v.t("Whatever uses it cannot send mail any more, and its open connections end. This cannot be " +
			"undone: make a new password if it is needed again.")
		c.Sample = []sample{{Text: v.t("App password of %s", plain(120, login))}}
		return "", &c, nil
	}
	if err := v.console.Operations.AppPasswords.Revoke(v.Context(), v.actor, login, id); err != nil {
		return "", nil, err
	}
	v.leave("The password for %s is revoked.", name)
	return back + "#apps", nil, nil
}
