// Package console serves the pages for people who run the relay: thin readers of package operate, in English and
// German, rendered here and whole without JavaScript. Each page and action stands in the registry (pages.go) with the
// operation that it needs. What came from outside (replies, subjects, EHLO names) is text: it is escaped by
// html/template, never markup.
//
// Failure semantics: a page is rendered whole before its first octet is sent, or an error page that says what to do
// takes its place. What goes wrong here never touches mail. An action is done once, by POST; its page comes after a
// redirect, so that loading it again repeats nothing.
package console

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"postern/operate"
	"postern/relay/store"
)

// Options configures the console.
type Options struct {
	Operations *operate.Operations
	Logger     *slog.Logger
	Site       func() string // the relay's host name, shown on every page

	// Paths served by whoever knows the users. Requests reach the console with an operate.Actor in their context.
	Home    string // where pages lead back to; "": "/"
	SignIn  string // asked without one; "" answers 401
	SignOut string // a POST there ends the session; "" where there is none
	Account string // where people change their own account; "" where there is none
	Strong  string // where the second factor is given again; the way back is in its parameter "next"

	Also []Route             // pages of other packages; in the menu they come last
	Now  func() time.Time    // nil: time.Now
	Look operate.LookOptions // whom DNS is asked of; zero: the system's resolver

	// Keepsakes keeps files until they are fetched, for all nodes; nil: they stay in memory, as there is one node.
	Keepsakes Keepsakes
}

// maxForm bounds the body of a request, in octets: a selection of maxSelected messages takes a third of it.
const maxForm = 1 << 20

// console is the handler's state. Nothing in it changes but what it remembers.
type console struct {
	Options
	pages  []page
	sheets map[string]*sheets // by language
	assets *assets

	traffic memo[traffic]
	shape   memo[operate.Shape]
	open    memo[[]store.Alert]
	held    memo[int64]
	kept    keepsakes
}

// Handler returns the console. It panics if what is embedded cannot be parsed, which a test would have shown.
func Handler(o Options) http.Handler { return newConsole(o, registry()).handler() }

func newConsole(o Options, pages []page) *console {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Home == "" {
		o.Home = "/"
	}
	c := &console{Options: o, pages: pages, assets: loadAssets()}
	c.sheets = loadSheets(c, c.pages)
	return c
}

func (c *console) handler() http.Handler {
	mux := http.NewServeMux()
	c.route(mux)
	mux.Handle("GET "+assetsPath+"{hash}/{name}", c.assets)
	mux.Handle("/", c.visited(func(v *visit) { v.fail(http.StatusNotFound, v.t("There is no such page.")) }))
	return c.protect(mux)
}

// route serves the pages and their actions, and says what a path that is used in another way is for.
func (c *console) route(mux *http.ServeMux) {
	methods := map[string]string{}
	for _, p := range c.pages {
		mux.Handle("GET "+pattern(p.path), c.guarded(p.needs, func(v *visit) { v.showPage(&p) }))
		methods[p.path] = "GET, HEAD"
	}
	for _, p := range c.pages {
		for _, a := range p.actions {
			mux.Handle("POST "+pattern(a.path), c.guarded(a.needs, func(v *visit) { v.run(&p, &a) }))
			methods[a.path] = strings.TrimPrefix(methods[a.path]+", POST", ", ")
		}
	}
	for _, r := range c.Also {
		mux.Handle(r.Method+" "+pattern(r.Path), c.also(r))
		methods[r.Path] = strings.TrimPrefix(methods[r.Path]+", "+r.Method, ", ")
	}
	for path, allowed := range methods {
		mux.Handle(pattern(path), c.visited(func(v *visit) {
			v.w.Header().Set("Allow", allowed)
			v.fail(http.StatusMethodNotAllowed, v.t("This page cannot be used in this way."))
		}))
	}
}

// pattern is the ServeMux pattern of a path; "/" alone would be every path.
func pattern(path string) string {
	if path == "/" {
		return "/{$}"
	}
	return path
}

// protect sets the headers of every answer, and refuses requests that another site's page made.
func (c *console) protect(next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(c.visited(func(v *visit) {
		v.fail(http.StatusForbidden, v.t("This request came from another web site and was not carried out."))
	}))
	inner := origin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		inner.ServeHTTP(w, r)
	})
}

// contentPolicy allows what this package serves and nothing else: no inline script or style, no other site.
const contentPolicy = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// secure sets the headers of every answer. With a Referrer-Policy of no-referrer browsers would send the origin "null"
// with forms, and those without Sec-Fetch-Site (over plain HTTP) would be refused.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}
