// Package autoconfig serves mail programs the settings of an account, at the addresses where they ask, without login:
// Thunderbird's autoconfig, Outlook's autodiscover, PACC, and Apple's profile. Package relay/clientsetup makes them.
//
// Failure semantics: an answer follows from relay.toml and the domain that was asked for. It never tells whether an
// account exists, nobody looks. The domain comes from the address in the request, else from the Host field, and only a
// configured one counts; neither is repeated, but for the address itself, escaped, in what sets up its account. No
// redirect leads elsewhere than to [autoconfig] url. Passwords that programs send along are neither read nor logged.
// A request has 8 kB at most; a client has 120 at once, then two a second, counted for 4096 clients by address, of IPv6
// by its /64; behind a web server that is a trusted proxy, by the address that it asks for. What a format cannot say is
// answered 404 with the reason.
package autoconfig

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"postern/internal/forwarded"
	"postern/mail"
	"postern/relay/clientsetup"
)

// Options configure a Server.
type Options struct {
	// Setup returns what there is to tell now; without Domains nothing is served.
	Setup func() *clientsetup.Setup
	// Signer returns the certificate that signs Apple's profile, nil for none.
	Signer func() *tls.Certificate
	// Proxies, unless nil, returns the web servers that are believed for whom they ask, by X-Forwarded-For.
	Proxies func() []netip.Prefix
	Logger  *slog.Logger
}

// Server answers mail programs.
type Server struct {
	Options
	clients *clients
}

// New returns a Server.
func New(o Options) *Server {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Proxies == nil {
		o.Proxies = func() []netip.Prefix { return nil }
	}
	return &Server{o, newClients()}
}

// Before answers what mail programs ask, and leaves everything else to next.
func (s *Server) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setup := s.Setup()
		serve := answers(r.URL.Path)
		if serve == nil || len(setup.Domains) == 0 {
			next.ServeHTTP(w, r)
			return
		}
		if s.admit(w, r) {
			s.Logger.Debug("settings are asked for", "path", canonicalPath(r.URL.Path), "client", r.RemoteAddr)
			serve(s, w, r, setup)
		}
	})
}

// Handler answers what mail programs ask, and 404 to all else.
func (s *Server) Handler() http.Handler {
	return s.Before(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.admit(w, r) {
			refuse(w, http.StatusNotFound, "there is nothing here")
		}
	}))
}

// Redirect leads what mail programs ask for by plain HTTP to the place that has TLS: whoever is on the way could change
// the settings otherwise. The target is [autoconfig] url, with the domain that was asked for; the address is not sent
// on.
func (s *Server) Redirect() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setup := s.Setup()
		if !s.admit(w, r) {
			return
		}
		path := canonicalPath(r.URL.Path)
		domain, ok := domainOf(r, setup)
		switch {
		case path == "" || path == clientsetup.ProfilePath || len(setup.Domains) == 0 || !ok:
			refuse(w, http.StatusNotFound, "there is nothing here")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			notAllowed(w, "GET, HEAD")
		default:
			to := url.URL{Scheme: "https", Host: setup.URL.Host, Path: path,
				RawQuery: url.Values{domainParameter: {domain}}.Encode()}
			w.Header().Set("Location", to.String())
			w.WriteHeader(http.StatusFound)
		}
	})
}

// domainParameter is what Redirect makes of the name that was asked for.
const domainParameter = "domain"

// admit sets the headers of every answer, and refuses a client that asks too much.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if !s.clients.allow(forwarded.Locate(r, s.Proxies()).RemoteAddr, time.Now()) {
		h.Set("Retry-After", "60")
		refuse(w, http.StatusTooManyRequests, "too many requests, come back in a minute")
		return false
	}
	return true
}

type answer func(*Server, http.ResponseWriter, *http.Request, *clientsetup.Setup)

// answers returns what serves a path, nil for those that no mail program asks for.
func answers(path string) answer {
	switch canonicalPath(path) {
	case clientsetup.ThunderbirdPath, clientsetup.ThunderbirdPathWK:
		return (*Server).thunderbird
	case clientsetup.OutlookPath:
		return (*Server).outlook
	case clientsetup.PACCPath:
		return (*Server).pacc
	case clientsetup.ProfilePath:
		return (*Server).profile
	}
	return nil
}

// canonicalPath is one of ours, "" for any other. Outlook's versions write theirs with different capitals.
func canonicalPath(path string) string {
	if strings.EqualFold(path, clientsetup.OutlookPath) {
		return clientsetup.OutlookPath
	}
	for _, p := range []string{clientsetup.ThunderbirdPath, clientsetup.ThunderbirdPathWK, clientsetup.PACCPath,
		clientsetup.ProfilePath} {
		if path == p {
			return p
		}
	}
	return ""
}

// domainOf is the domain that is asked for: of the address, of our redirect, or of the host; else the only one.
func domainOf(r *http.Request, setup *clientsetup.Setup) (string, bool) {
	query := r.URL.Query()
	if text := query.Get(clientsetup.AddressParameter); text != "" {
		_, domain, err := setup.ParseAddress(text)
		return domain, err == nil
	}
	if text := query.Get(domainParameter); text != "" {
		return ours(text, setup)
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, prefix := range []string{"", clientsetup.AutoconfigPrefix, clientsetup.AutodiscoverPrefix,
		clientsetup.PACCPrefix} {
		if rest, ok := strings.CutPrefix(host, prefix); ok && setup.Has(rest) {
			return rest, true
		}
	}
	if len(setup.Domains) == 1 {
		return setup.Domains[0], true
	}
	return "", false
}

func ours(text string, setup *clientsetup.Setup) (string, bool) {
	domain, err := mail.ParseDomain(text)
	domain = mail.ALabels(domain)
	return domain, err == nil && setup.Has(domain)
}

func (s *Server) thunderbird(w http.ResponseWriter, r *http.Request, setup *clientsetup.Setup) {
	if !reads(w, r) {
		return
	}
	domain, ok := domainOf(r, setup)
	if !ok {
		refuse(w, http.StatusNotFound, "there are no settings for this domain; ask with ?emailaddress=")
		return
	}
	document, err := setup.Thunderbird(domain)
	s.send(w, document, err, "text/xml; charset=utf-8", cached)
}

func (s *Server) pacc(w http.ResponseWriter, r *http.Request, setup *clientsetup.Setup) {
	if reads(w, r) {
		document, err := setup.PACC()
		s.send(w, document, err, "application/json", cached)
	}
}

// cached lets what has no address in it be kept for minutes, not longer: DNS has a digest of PACC's document.
const cached = "public, max-age=300"

func (s *Server) profile(w http.ResponseWriter, r *http.Request, setup *clientsetup.Setup) {
	if !reads(w, r) {
		return
	}
	address, _, err := setup.ParseAddress(r.URL.Query().Get(clientsetup.AddressParameter))
	if err != nil {
		refuse(w, http.StatusNotFound, "write your whole address after ?emailaddress=; it is for the domains of this "+
			"office alone")
		return
	}
	document, err := setup.Apple(address)
	if by := s.Signer(); err == nil && by != nil {
		if signed, signErr := clientsetup.Sign(document, by); signErr == nil {
			document = signed
		} else {
			s.Logger.Warn("Apple's profile goes out unsigned", "err", signErr)
		}
	}
	w.Header().Set("Content-Disposition", `attachment; filename="mail.mobileconfig"`)
	s.send(w, document, err, "application/x-apple-aspen-config", "no-store")
}

// outlook answers autodiscover's POST. Errors are answers too, as Outlook expects them.
func (s *Server) outlook(w http.ResponseWriter, r *http.Request, setup *clientsetup.Setup) {
	if r.Method != http.MethodPost {
		notAllowed(w, http.MethodPost)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, clientsetup.MaxOutlookRequest+1))
	if err == nil && len(body) > clientsetup.MaxOutlookRequest {
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusRequestEntityTooLarge, "an autodiscover request has 8 kB at most")
		return
	}
	document, code, err := outlookAnswer(body, setup)
	if code != 0 {
		document = clientsetup.OutlookError(code, time.Now())
	}
	s.send(w, document, err, "text/xml; charset=utf-8", "no-store")
}

// outlookAnswer is the answer to a request, or the code of the one that says why there is none.
func outlookAnswer(body []byte, setup *clientsetup.Setup) (document []byte, code int, err error) {
	request, err := clientsetup.ParseOutlook(body)
	switch {
	case err != nil:
		return nil, clientsetup.OutlookBadRequest, nil
	case !request.Outlook():
		return nil, clientsetup.OutlookNoProvider, nil
	}
	address, _, err := setup.ParseAddress(request.Address)
	if err != nil {
		return nil, clientsetup.OutlookBadAddress, nil
	}
	document, err = setup.Outlook(address)
	if _, unfit := errors.AsType[*clientsetup.Unfit](err); unfit {
		return nil, clientsetup.OutlookNoProvider, nil
	}
	return document, 0, err
}

// reads refuses whatever is not GET or HEAD.
func reads(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	notAllowed(w, "GET, HEAD")
	return false
}

func notAllowed(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	refuse(w, http.StatusMethodNotAllowed, "only "+allowed+" is allowed here")
}

func refuse(w http.ResponseWriter, code int, why string) {
	http.Error(w, why, code)
}

// send sends a document, or why there is none.
func (s *Server) send(w http.ResponseWriter, document []byte, err error, kind, cache string) {
	unfit, ok := errors.AsType[*clientsetup.Unfit](err)
	switch {
	case ok:
		w.Header().Del("Content-Disposition")
		refuse(w, http.StatusNotFound, unfit.Error())
		return
	case err != nil:
		s.Logger.Error("settings for a mail program were not made", "err", err)
		refuse(w, http.StatusInternalServerError, "the settings could not be made; the server's log says why")
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", cache)
	w.Write(document)
}
