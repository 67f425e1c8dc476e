package console

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"postern/admin/access"
	"postern/operate"
)

// visit is one request, and what is known of who asks.
type visit struct {
	*http.Request
	*words  // of the visitor's language
	w       http.ResponseWriter
	console *console
	actor   operate.Actor
	known   bool // there is an actor
	now     time.Time
	notices []noticeLine // to be shown above the page
}

// visited makes a handler of what answers a visit, whoever asks.
func (c *console) visited(answer func(*visit)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Language")
		v := &visit{Request: r, words: wordsFor(r.Header.Get("Accept-Language")), w: w, console: c, now: c.Now()}
		v.actor, v.known = operate.ActorOf(r.Context())
		answer(v)
	})
}

// guarded lets those through who may do an operation.
func (c *console) guarded(needs operate.Operation, answer func(*visit)) http.Handler {
	return c.visited(func(v *visit) {
		if !v.known {
			v.signIn()
			return
		}
		if err := v.actor.May(needs); err != nil {
			v.refuse(err)
			return
		}
		answer(v)
	})
}

// may says whether the visitor may do an operation, the second factor aside: it is asked for when it is needed.
func (v *visit) may(op operate.Operation) bool {
	err := v.actor.May(op)
	return v.known && (err == nil || errors.Is(err, operate.ErrStrong))
}

// here is the path with its query, to come back to after a detour; a form is not sent twice.
func (v *visit) here() string {
	if v.Method != http.MethodGet {
		if from, err := url.Parse(v.Referer()); err == nil && from.Host == v.Host && from.Path != "" {
			return access.LocalPath(from.RequestURI())
		}
		return "/"
	}
	return access.LocalPath(v.URL.RequestURI())
}

// signIn sends somebody whom nobody knows to where they sign in.
func (v *visit) signIn() {
	if v.console.SignIn == "" {
		v.fail(http.StatusUnauthorized, v.t("Please sign in."))
		return
	}
	where := v.console.SignIn + "?next=" + url.QueryEscape(v.here())
	if v.Header.Get("HX-Request") == "true" { // a page that keeps itself fresh: all of it has to go there
		v.w.Header().Set("HX-Redirect", where)
		v.fail(http.StatusUnauthorized, v.t("Please sign in."))
		return
	}
	v.redirect(where)
}

// redirect goes on to a path of this site by GET.
func (v *visit) redirect(path string) {
	http.Redirect(v.w, v.Request, access.LocalPath(path), http.StatusSeeOther)
}

// refuse answers an error of an operation.
func (v *visit) refuse(err error) {
	kind, theirs := operate.KindOf(err)
	switch {
	case errors.Is(err, operate.ErrStrong) && v.console.Strong != "":
		v.redirect(v.console.Strong + "?next=" + url.QueryEscape(v.here()))
	case errors.Is(err, operate.ErrForbidden):
		v.fail(http.StatusForbidden, v.t("Your role does not allow this. Ask somebody who manages the console."))
	case theirs && kind == operate.NotFound:
		v.fail(http.StatusNotFound, v.said(plainLines(maxSaid, err.Error())).Text)
	case theirs && kind == operate.Conflict:
		v.fail(http.StatusConflict, v.said(plainLines(maxSaid, err.Error())).Text)
	case theirs:
		v.fail(http.StatusBadRequest, v.said(plainLines(maxSaid, err.Error())).Text)
	case v.Context().Err() != nil: // they left
	default:
		v.console.Logger.Error("the console could not answer", "path", v.URL.Path, "user", v.actor.Name, "error", err)
		v.fail(http.StatusInternalServerError,
			v.t("Something went wrong on the relay. Its log has the details; mail is not affected."))
	}
}

// failure is the body of the error page.
type failure struct {
	Status int
	Text   string
}

// fail answers with the error page.
func (v *visit) fail(status int, text string) {
	title := v.t("Not done")
	switch status {
	case http.StatusNotFound:
		title = v.t("Not found")
	case http.StatusForbidden:
		title = v.t("Not allowed")
	}
	v.render(status, nil, "error", title, failure{status, text})
}
