package console

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"postern/operate"
)

// Route is a page or form of another package in the look of the console: its templates, words and scripts stand here,
// what it does stands there.
type Route struct {
	Method, Path string             // of http.ServeMux, such as "GET" and "/invite/{token}"
	Needs        *operate.Operation // nil: it is for everybody, signed in or not
	Menu         string             // its title in the menu, a key of the catalogue; "": it is not there
	Under        string             // the path that the menu marks; "": its own
	Serve        func(*Visit)
}

// Rooms serves Options.Also and the static files, and nothing of the console but its look: for people who do not run
// the relay. Requests with an operate.Actor in their context are of somebody who is signed in.
func Rooms(o Options) http.Handler { return newConsole(o, nil).handler() }

// Visit is one request to a Route.
type Visit struct {
	*http.Request
	Writer http.ResponseWriter
	Now    time.Time

	v    *visit
	page *page
}

// Confirmation is the step before an action. Its sheet is "confirm".
type Confirmation = confirmation

// Field is a hidden field of a form.
type Field = field

// ConfirmSheet is the sheet of a Confirmation.
const ConfirmSheet = "confirm"

// asPage is what menu and render know of a route.
func (r *Route) asPage() *page {
	p := &page{path: r.Path, title: key(r.Menu), menu: r.Menu != "", under: r.Under}
	if r.Needs != nil {
		p.needs = *r.Needs
	}
	return p
}

// also answers a route.
func (c *console) also(r Route) http.Handler {
	p := r.asPage()
	serve := func(v *visit) {
		if err := v.ParseForm(); err != nil {
			v.fail(http.StatusBadRequest, v.t("What was sent cannot be read, or is too much at once."))
			return
		}
		r.Serve(&Visit{Request: v.Request, Writer: v.w, Now: v.now, v: v, page: p})
	}
	if r.Needs == nil {
		return c.visited(serve)
	}
	return c.guarded(*r.Needs, serve)
}

// T is a text of the catalogue in the visitor's language.
func (v *Visit) T(k string, args ...any) string { return v.v.t(key(k), args...) }

// Span is how long something lasts, in words.
func (v *Visit) Span(d time.Duration) string { return v.v.span(d) }

// Encryption is what devices call a way to use TLS, of config.Auto, StartTLS, Implicit or NoTLS.
func (v *Visit) Encryption(tls string) string { return encryptionOf(v.v, tls) }

// Actor is who asks, the zero Actor if nobody is signed in.
func (v *Visit) Actor() operate.Actor { return v.v.actor }

// May says whether the visitor may do an operation, the second factor aside.
func (v *Visit) May(op operate.Operation) bool { return v.v.may(op) }

// Show answers with a sheet.
func (v *Visit) Show(status int, sheet, title string, body any) {
	v.v.render(status, v.page, sheet, title, body)
}

// Leave leaves a notice for the page that comes next. It must not tell a secret.
func (v *Visit) Leave(k string, args ...any) { v.v.leave(key(k), args...) }

// Go goes on to a path of this site by GET.
func (v *Visit) Go(path string) { v.v.redirect(path) }

// Fail answers with the error page.
func (v *Visit) Fail(status int, text string) { v.v.fail(status, text) }

// Refuse answers an error of an operation: with the way to the second factor where that is what is missing.
func (v *Visit) Refuse(err error) { v.v.refuse(err) }

// Theirs is what a form may say of an error that its sender can do something about, "" for any other.
func (v *Visit) Theirs(err error) string {
	if fault, ok := errors.AsType[*operate.Error](err); ok {
		return plain(maxFault, fault.Msg)
	}
	return ""
}

// maxFault bounds what is shown of an error, in octets.
const maxFault = 500

// IsAsset reports whether a path is of a static file, which everybody may have.
func IsAsset(path string) bool { return strings.HasPrefix(path, assetsPath) }

// SetHeaders sets the headers that each answer has, whoever gives it.
func SetHeaders(h http.Header) { secure(h) }
