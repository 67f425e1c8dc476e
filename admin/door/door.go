// Package door serves the pages by which people come into the console and leave it: the login, the invitation, the
// second factor given again, who may in, and the tokens of programs. It stands before console and API and decides which
// requests reach them. It decides nothing about who may in (package access does) and has no look of its own (package
// console has).
//
// # Failure semantics
//
// Whoever is kept out is told why and what to do, in their language, on the page where they are; what is wrong with a
// name, a password or a code is one answer. Trouble of ours lets nobody in, and is the console's error page. A link, a
// token and a password are shown once, on the answer to the form that made them, and are in no notice, log or address.
//
// # The order
//
// Whose request it is comes first, where a trusted proxy makes it; then headers, so that every answer has them; then
// what another site's page made is refused, before it can use up somebody's logins; then, for the pages that everybody
// may see, the bound on logins; for everything else a session or a token. Bodies of forms have 64 kB at most on the
// pages for everybody, and 1 MB behind the login.
package door

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"postern/admin/access"
	"postern/admin/console"
	"postern/operate"
)

// Options configure the door. Access and Console are needed.
type Options struct {
	Access *access.Access
	// Console is what the console is to be; the paths of what this package serves are filled in.
	Console console.Options
	API     http.Handler // under /api/; nil: there is none
	Logger  *slog.Logger // nil: none
}

// The paths of this package, beside access.LoginPath, access.OIDCPath and access.InvitePath.
const (
	logoutPath    = "/logout"
	stepUpPath    = "/step-up"
	passkeyPath   = access.LoginPath + "/passkey"
	oidcStartPath = access.OIDCPath + "/start"
	optionsPath   = "/options" // below a page that has a passkey
	peoplePath    = "/people"
	tokensPath    = "/tokens"
	accountPath   = "/account"
)

// maxForm bounds the body of what everybody may send, in octets: a password and what a passkey signed.
const maxForm = 64 << 10

// door is the handler's state.
type door struct {
	access *access.Access
	log    *slog.Logger
}

// Handler returns everything that is served to people and programs.
func Handler(o Options) http.Handler {
	d := &door{access: o.Access, log: o.Logger}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	o.Console.SignIn, o.Console.SignOut, o.Console.Strong = access.LoginPath, logoutPath, stepUpPath
	o.Console.Account = accountPath
	o.Console.Also = append(o.Console.Also, d.routes()...)
	pages := console.Handler(o.Console)
	open := o.Access.Recognise(o.Access.BoundLogins(http.MaxBytesHandler(pages, maxForm), tooMany(pages)))
	inside, api := o.Access.Authenticate(pages), o.Access.Authenticate(orNothing(o.API))
	origin := http.NewCrossOriginProtection()
	return o.Access.Locate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		console.SetHeaders(w.Header())
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, access.APIPath):
			api.ServeHTTP(w, r)
		case console.IsAsset(path), origin.Check(r) != nil: // which the console refuses, with a page
			pages.ServeHTTP(w, r)
		case forEverybody(path):
			open.ServeHTTP(w, r)
		default:
			inside.ServeHTTP(w, r)
		}
	}))
}

// forEverybody reports whether a path is for those who are not signed in.
func forEverybody(path string) bool {
	return path == access.LoginPath || strings.HasPrefix(path, access.LoginPath+"/") ||
		strings.HasPrefix(path, access.InvitePath)
}

func orNothing(api http.Handler) http.Handler {
	if api != nil {
		return api
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		access.Problem(w, http.StatusNotFound, "not-found", "there is no API here")
	})
}

type busyKey struct{}

// tooMany answers whom BoundLogins refuses with the login page.
func tooMany(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		login := r.Clone(context.WithValue(r.Context(), busyKey{}, true))
		login.Method, login.Body, login.URL.Path, login.URL.RawQuery = http.MethodGet, http.NoBody, access.LoginPath, ""
		pages.ServeHTTP(w, login)
	})
}

// routes are all pages and forms.
func (d *door) routes() []console.Route {
	get := func(path string, serve func(*console.Visit), needs *operate.Operation) console.Route {
		return console.Route{Method: http.MethodGet, Path: path, Needs: needs, Serve: serve}
	}
	post := func(path string, serve func(*console.Visit), needs *operate.Operation) console.Route {
		return console.Route{Method: http.MethodPost, Path: path, Needs: needs, Serve: serve}
	}
	invite := access.InvitePath + "{token}"
	g, p, t := guests{d.access, d}, people{d.access.Users}, tokens{d.access.Tokens}
	users := get(peoplePath, p.list, &operate.ListConsoleUsers)
	users.Menu = "Console users"
	programs := get(tokensPath, t.list, &operate.ListTokens)
	programs.Menu = "API tokens"
	all := []console.Route{
		get(access.LoginPath, d.showLogin, nil), post(access.LoginPath, d.login, nil),
		post(passkeyPath, d.loginPasskey, nil), post(passkeyPath+optionsPath, d.loginOptions, nil),
		get(access.OIDCPath, d.finishOIDC, nil), get(oidcStartPath, d.beginOIDC, nil),
		get(invite, g.show, nil), post(invite, g.accept, nil), post(invite+optionsPath, g.options, nil),
		post(logoutPath, d.logout, nil), get(stepUpPath, d.showStepUp, nil), post(stepUpPath, d.stepUp, nil),
		post(stepUpPath+optionsPath, d.stepUpOptions, nil),
		users, programs,
	}
	for _, r := range []console.Route{
		get(peoplePath+"/invite", p.ask, &operate.InviteUser),
		post(peoplePath+"/invite", p.invite, &operate.InviteUser),
		get(peoplePath+"/change", p.show, &operate.ChangeRole),
		post(peoplePath+"/role", p.setRole, &operate.ChangeRole),
		post(peoplePath+"/disable", p.disable, &operate.DisableUser),
		post(peoplePath+"/remove", p.remove, &operate.RemoveUser),
	} {
		r.Under = peoplePath
		all = append(all, r)
	}
	for _, r := range []console.Route{
		get(tokensPath+"/add", t.ask, &operate.AddToken), post(tokensPath+"/add", t.add, &operate.AddToken),
		post(tokensPath+"/revoke", t.revoke, &operate.RevokeToken),
	} {
		r.Under = tokensPath
		all = append(all, r)
	}
	return append(all, account{d.access, d}.routes()...)
}
