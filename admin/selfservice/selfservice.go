// Package selfservice serves the page on which the people of an office make passwords for their devices and mail
// programs. They log in to it by the office's OpenID Connect, or with the password that a source of logins knows.
//
// # Failure semantics
//
// Whoever is kept out is told why on the page where they log in, in their language. A user name that nobody has, a
// wrong password and one of a source that is not for this page are one answer, which takes alike long (package auth
// sees to that) and counts in the lockout of the relay's logins. A source or provider that does not answer lets nobody
// in, and is held against nobody. A password is shown once, on the answer to the form that made it, and is in no
// notice, log or address.
//
// # The order
//
// As in package door: whose request it is comes first, where a trusted proxy makes it; then what another site's page
// made is refused; then the bound on logins; then the session; then the bound on changes. Bodies of forms have 64 kB at
// most.
package selfservice

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/store"
)

// Options configure a Server. All but the last two are needed.
type Options struct {
	Config     func() *config.Config // in force
	Store      *store.Store
	Operations *operate.Operations
	Logins     Logins
	OIDC       *access.Visitors // whose provider follows Config
	Logger     *slog.Logger     // nil: none
	Now        func() time.Time // nil: time.Now
}

// Logins verify passwords. An auth.Authenticator does.
type Logins interface {
	AuthenticateBy(ctx context.Context, login, password string, client netip.Addr, sources ...string) (auth.Identity,
		error)
	Lookup(ctx context.Context, login string) (auth.Identity, error)
	LockedUntil(login string, client netip.Addr) time.Time
}

// The paths of the page.
const (
	home       = config.SelfServicePath + "/"
	loginPath  = home + "login"
	logoutPath = home + "logout"
	newPath    = home + "new"
	revokePath = home + "revoke"
	oidcPath   = config.SelfServiceOIDCPath
	startPath  = oidcPath + "/start"
)

// maxForm bounds the body of a form, in octets.
const maxForm = 64 << 10

// Server is the page. It is safe for concurrent use and starts no goroutine.
type Server struct {
	Options
	handler http.Handler
}

// New returns a Server.
func New(o Options) *Server {
	s := &Server{Options: o}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	pages := console.Rooms(console.Options{Home: home, SignOut: logoutPath, Also: s.routes(), Logger: s.Logger,
		Now: s.Now, Site: func() string { return s.Config().Hostname }})
	forms := http.MaxBytesHandler(pages, maxForm)
	known := s.recognise(access.NewLimiter().Bound(s.Now, isChange, forms, tooManyChanges(forms)))
	bounded := access.NewLimiter().Bound(s.Now, isLogin, known, tooMany(pages))
	origin := http.NewCrossOriginProtection()
	proxies := func() []netip.Prefix { return s.Config().Admin.TrustedProxies.Prefixes() }
	s.handler = access.Locate(proxies, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		console.SetHeaders(w.Header())
		if console.IsAsset(r.URL.Path) || origin.Check(r) != nil { // which the pages refuse, with a page
			pages.ServeHTTP(w, r)
			return
		}
		bounded.ServeHTTP(w, r)
	}))
	return s
}

// Before answers what is asked below the page's path while the page is on, and leaves everything else to next. Where
// next is nil there is nothing else.
func (s *Server) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		own := path == config.SelfServicePath || strings.HasPrefix(path, home)
		switch {
		case s.Config().SelfService.On() && (own || next == nil && console.IsAsset(path)):
			s.handler.ServeHTTP(w, r)
		case next != nil:
			next.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// Handler answers with the page and nothing else.
func (s *Server) Handler() http.Handler {
	page := s.Before(nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" && s.Config().SelfService.On() {
			console.SetHeaders(w.Header())
			http.Redirect(w, r, home, http.StatusSeeOther)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// isLogin reports whether a request begins or ends a login.
func isLogin(r *http.Request) bool {
	return r.URL.Path == loginPath && r.Method == http.MethodPost ||
		r.URL.Path == oidcPath || strings.HasPrefix(r.URL.Path, oidcPath+"/")
}

// isChange reports whether a request makes or revokes a password: each stands in the audit, which has an end.
func isChange(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.URL.Path == newPath || r.URL.Path == revokePath)
}

type contextKey int

const (
	visitorKey contextKey = iota
	faultKey
	busyKey
)

// tooMany answers whom the bound on logins refuses with the login page.
func tooMany(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		login := r.Clone(context.WithValue(r.Context(), busyKey, true))
		login.Method, login.Body, login.URL.Path, login.URL.RawQuery = http.MethodGet, http.NoBody, loginPath, ""
		pages.ServeHTTP(w, login)
	})
}

// tooManyChanges answers whom the bound on changes refuses.
func tooManyChanges(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), busyKey, true)))
	})
}

// routes are all pages and forms.
func (s *Server) routes() []console.Route {
	route := func(method, path string, serve func(*console.Visit)) console.Route {
		return console.Route{Method: method, Path: path, Serve: serve}
	}
	get, post := http.MethodGet, http.MethodPost
	in, own := logins{s}, passwords{s}
	return []console.Route{
		route(get, home+"{$}", s.signedIn(own.list)),
		route(get, config.SelfServicePath, func(v *console.Visit) { v.Go(home) }),
		route(get, loginPath, in.showLogin), route(post, loginPath, in.login), route(post, logoutPath, in.logout),
		route(get, startPath, in.beginOIDC), route(get, oidcPath, in.finishOIDC),
		route(get, newPath, s.signedIn(own.ask)), route(post, newPath, s.signedIn(own.add)),
		route(get, revokePath, s.signedIn(own.confirm)), route(post, revokePath, s.signedIn(own.revoke)),
	}
}

// signedIn sends others than those who are signed in to the login.
func (s *Server) signedIn(serve func(*console.Visit, *visitor)) func(*console.Visit) {
	return func(v *console.Visit) {
		busy, _ := v.Context().Value(busyKey).(bool)
		switch who := visitorOf(v.Context()); {
		case who != nil && busy:
			v.Fail(http.StatusTooManyRequests, v.T("Too many changes at once. Wait a minute and try again."))
			return
		case who != nil:
			serve(v, who)
			return
		}
		err, _ := v.Context().Value(faultKey).(error)
		switch reason := access.ReasonOf(err); {
		case err == nil:
			v.Go(loginPath)
		case reason != "":
			v.Go(loginPath + "?why=" + string(reason))
		case errors.Is(err, context.Canceled): // they left
		default:
			v.Refuse(err)
		}
	}
}
