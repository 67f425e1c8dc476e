package access

import (
	"net"
	"net/http"
	"strings"
	"time"

	"postern/internal/local"
)

// Cookie is the name of a cookie of ours, without its prefix. With the prefix __Host- a browser takes it from this host
// by HTTPS only. In plain HTTP, which is served on loopback only, not all browsers take Secure cookies (Chromium and
// Firefox do, Safari does not): there the name has no prefix, and whoever reads traffic on loopback owns the machine.
type Cookie string

// The cookies of the console.
const (
	sessionCookie Cookie = "postern"
	flowCookie    Cookie = "postern-login"
)

// in is the name of the cookie for a request.
func (c Cookie) in(r *http.Request) string {
	if plain(r) {
		return string(c)
	}
	return "__Host-" + string(c)
}

// Set gives the browser the cookie for a time, "" takes it away.
func (c Cookie) Set(w http.ResponseWriter, r *http.Request, value string, lasts time.Duration) {
	seconds := int(lasts.Seconds())
	if value == "" {
		seconds = -1
	}
	http.SetCookie(w, &http.Cookie{Name: c.in(r), Value: value, Path: "/", MaxAge: seconds, HttpOnly: true,
		Secure: !plain(r), SameSite: http.SameSiteLaxMode})
}

// Of returns the value of the cookie, "" if there is none.
func (c Cookie) Of(r *http.Request) string {
	got, err := r.Cookie(c.in(r))
	if err != nil {
		return ""
	}
	return got.Value
}

// plain reports whether a request came in plain HTTP to loopback by a loopback name. One that came to another name went
// through a proxy, which speaks TLS to the browser.
func plain(r *http.Request) bool {
	if r.TLS != nil {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return local.Host(strings.Trim(host, "[]"))
}

// SetSession gives the browser the cookie of a session, "" takes it away.
func SetSession(w http.ResponseWriter, r *http.Request, token string) {
	sessionCookie.Set(w, r, token, SessionFor)
}

// SetFlow gives the browser the cookie of a step of a login, "" takes it away.
func SetFlow(w http.ResponseWriter, r *http.Request, value string) {
	flowCookie.Set(w, r, value, FlowFor)
}

// FlowOf returns the cookie of SetFlow, "" if there is none.
func FlowOf(r *http.Request) string { return flowCookie.Of(r) }
