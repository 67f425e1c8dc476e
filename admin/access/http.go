package access

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"postern/operate"
)

// PollHeader is sent with requests that a page makes by itself: they keep no session open.
const PollHeader = "Postern-Poll"

// APIPath begins the paths of the API: what is refused there is a problem document, and no page.
const APIPath = "/api/"

// LoginPath is where pages send whoever has to log in.
const LoginPath = "/login"

// ClientOf is the address that a request comes from.
func ClientOf(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().WithZone("").String()
}

// LocalPath is a path of the console that may be gone to after a login: next, if it is one, else "/".
func LocalPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.ContainsAny(next, "\\\r\n\t") || len(next) > 1000 {
		return "/"
	}
	return next
}

type contextKey int

const (
	sessionKey contextKey = iota
)

// SessionOf returns the session of a request that went through Authenticate or Recognise; nil: it has none, or a token.
func SessionOf(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey).(*Session)
	return s
}

// Authenticate lets requests through that have a session or a token, with who it is in their context. Others are
// answered 401 in the API and sent to the login elsewhere. What changes something with a session must come from our own
// pages (net/http.CrossOriginProtection); tokens are sent by no browser.
func (a *Access) Authenticate(next http.Handler) http.Handler {
	own := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := a.identify(r)
		if err == nil && SessionOf(ctx) != nil {
			if why := own.Check(r); why != nil {
				Problem(w, http.StatusForbidden, "cross-origin", "the request comes from another site")
				return
			}
		}
		if err != nil {
			a.turnAway(w, r, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Recognise is Authenticate for pages that everybody may see: whoever has a session has it in the context.
func (a *Access) Recognise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx, err := a.identify(r); err == nil {
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// identify finds out who makes a request.
func (a *Access) identify(r *http.Request) (context.Context, error) {
	ctx, client := r.Context(), ClientOf(r)
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, refusef(ReasonToken, "write Authorization: Bearer "+TokenPrefix+"…")
		}
		who, err := a.Tokens.Actor(ctx, strings.TrimSpace(token), client)
		return operate.WithActor(ctx, who), err
	}
	cookie := sessionCookie.Of(r)
	if cookie == "" {
		return nil, refuse(ReasonSession, nil)
	}
	s, err := a.Logins.Session(ctx, cookie, r.Header.Get(PollHeader) == "")
	if err != nil {
		return nil, err
	}
	return operate.WithActor(context.WithValue(ctx, sessionKey, s), s.Actor(client, a.now())), nil
}

// turnAway answers a request without a session or token that counts.
func (a *Access) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		a.log.Error("console: cannot tell who it is", "err", err)
		Problem(w, http.StatusServiceUnavailable, "unavailable", "who you are cannot be checked now; try again later")
		return
	}
	if r.Header.Get("Authorization") != "" {
		a.log.Warn("API: refused", "client", ClientOf(r), "reason", err)
	}
	switch {
	case refusal.Reason == ReasonLockedOut:
		a.tooMany(w, refusal)
	case refusal.Reason == ReasonTokenNetwork:
		Problem(w, http.StatusForbidden, string(refusal.Reason), refusal.Text())
	case strings.HasPrefix(r.URL.Path, APIPath) || r.Header.Get("Authorization") != "":
		w.Header().Set("WWW-Authenticate", `Bearer realm="postern"`)
		Problem(w, http.StatusUnauthorized, string(refusal.Reason), refusal.Text())
	default:
		a.toLogin(w, r, refusal)
	}
}

// toLogin sends a browser to the login. htmx follows no redirect of its own requests: it is told by a header.
func (a *Access) toLogin(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	values := url.Values{}
	if r.Method == http.MethodGet && r.URL.Path != "/" {
		values.Set("next", r.URL.RequestURI())
	}
	if refusal.Reason != ReasonSession {
		values.Set("why", string(refusal.Reason))
	}
	to := LoginPath
	if len(values) > 0 {
		to += "?" + values.Encode()
	}
	if r.Header.Get("HX-Request") != "" {
		w.Header().Set("HX-Redirect", LoginPath)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (a *Access) tooMany(w http.ResponseWriter, refusal *Refusal) {
	if wait := refusal.Until.Sub(a.now()); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
	}
	Problem(w, http.StatusTooManyRequests, string(refusal.Reason), refusal.Text())
}

// BoundLogins refuses a client that begins or ends too many logins: 20 at once, then one in three seconds. It belongs
// before whatever proves who somebody is; looking at the login page is free. refused answers instead of next, after
// Retry-After.
func (a *Access) BoundLogins(next, refused http.Handler) http.Handler {
	return a.rate.Bound(a.now, func(r *http.Request) bool {
		return r.Method != http.MethodGet && r.Method != http.MethodHead || strings.HasPrefix(r.URL.Path, OIDCPath)
	}, next, refused)
}

// Forbid answers a request for what an actor may not: 403, which says where only the second factor is missing.
func Forbid(w http.ResponseWriter, err error) {
	code := "forbidden"
	if errors.Is(err, operate.ErrStrong) {
		code = "second-factor"
	}
	Problem(w, http.StatusForbidden, code, err.Error())
}

// problemTypes are the types of problems as the description of the API lists them, by code or else by status.
var problemTypes = []struct {
	status            int
	code, name, title string // code "": any
}{
	{http.StatusUnauthorized, "", "unauthenticated", "Nobody is logged in"},
	{http.StatusForbidden, "second-factor", "second-factor", "The second factor is asked for again"},
	{http.StatusForbidden, "cross-origin", "cross-origin", "Another site made this request"},
	{http.StatusForbidden, "", "forbidden", "Not allowed"},
	{http.StatusNotFound, "", "not-found", "There is no such thing"},
	{http.StatusServiceUnavailable, "", "busy", "Too much of this is under way"},
}

// Problem answers with a problem document (RFC 9457). type is of those that the description of the API lists; code says
// more closely what it was.
func Problem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	kind, title := "about:blank", http.StatusText(status)
	for _, t := range problemTypes {
		if t.status == status && (t.code == "" || t.code == code) {
			kind, title = "urn:postern:problem:"+t.name, t.title
			break
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{ // a client that is gone needs no answer
		"type": kind, "title": title, "status": status, "detail": detail, "code": code,
	})
}
