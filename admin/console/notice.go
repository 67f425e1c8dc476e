package console

import (
	"encoding/base64"
	"encoding/json"
	"net/http"

	"postern/mail"
)

// noticeCookie carries what an action did over the redirect that follows it.
const noticeCookie = "postern-notice"

// maxNotice bounds an argument of a notice, in octets.
const maxNotice = 200

// notice is a text of the catalogue with its arguments. Texts of other origin are not shown.
type notice struct {
	Key  key   `json:"key"`
	Args []any `json:"args,omitempty"`
}

// leave leaves a notice for the page that the redirect leads to. It is kept by the browser for a minute: it must not
// tell a secret.
func (v *visit) leave(k key, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = mail.Cut(mail.Printable(s), maxNotice)
		}
	}
	data, err := json.Marshal(notice{k, args})
	if err != nil {
		return
	}
	v.setNotice(base64.RawURLEncoding.EncodeToString(data), 60)
}

func (v *visit) setNotice(value string, seconds int) {
	http.SetCookie(v.w, &http.Cookie{Name: noticeCookie, Value: value, Path: "/", MaxAge: seconds, HttpOnly: true,
		Secure: v.TLS != nil, SameSite: http.SameSiteStrictMode})
}

// takeNotice moves a notice from the browser to the page. A whole number comes back from JSON as a float64.
func (v *visit) takeNotice() {
	cookie, err := v.Cookie(noticeCookie)
	if err != nil {
		return
	}
	v.setNotice("", -1)
	data, err := base64.RawURLEncoding.DecodeString(mail.Cut(cookie.Value, 4096))
	var n notice
	if err != nil || json.Unmarshal(data, &n) != nil || !knownKeys[n.Key] {
		return
	}
	for i, a := range n.Args {
		switch a := a.(type) {
		case float64:
			n.Args[i] = int64(a)
		case string:
			n.Args[i] = mail.Cut(mail.Printable(a), maxNotice)
		default:
			return
		}
	}
	line := noticeLine{"ok", v.t(n.Key, n.Args...)}
	if notDone[n.Key] {
		line.Icon = "warn"
	}
	v.notices = append(v.notices, line)
}

// noticeLine is a notice as a page shows it.
type noticeLine struct{ Icon, Text string }

// notDone are notices that nothing was done.
var notDone = map[key]bool{
	"Nothing was chosen, or it is gone from the queue already.":                true,
	"More is selected than you confirmed: look at it again. Nothing was done.": true,
	"Nothing was done: %s has been changed meanwhile.":                         true,
	"DNS of %s was looked at: what is wrong stands below.":                     true,
}
