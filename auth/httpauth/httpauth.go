// Package httpauth is the credential source of a program of the office's own, asked by one POST.
//
// The request is JSON, {"login": "…", "password": "…"}, and so is the answer, which must have status 200:
//
//	{"result": "ok", "login": "…", "groups": ["…"], "senders": ["…"], "networks": ["…"]}
//	{"result": "unknown"}    this program does not know the login: the next source is asked
//	{"result": "wrong", "login": "…"}    the password is wrong
//	{"result": "locked", "reason": "…"}
//	{"result": "later", "reason": "…"}    it cannot tell now, for this login
//
// All but result may be left out. login is the one name of an account that has several, for limits and the lockout. An
// empty login is a probe, to be answered like one that is unknown.
//
// # Failure semantics
//
// Passwords travel by HTTPS that verifies, or to this machine. Redirects are not followed and proxies not used: both
// would take the password elsewhere. Any other status, an answer over 64 KiB, or one that is not understood in every
// part means that the source is down; none of it lets anybody in, or counts as a wrong password.
package httpauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/auth"
	"postern/auth/internal/fields"
	"postern/internal/local"
	"postern/mail"
)

// Options are a program.
type Options struct {
	Name    string         // of the source
	URL     string         // https://…, or http:// on this machine
	RootCAs *x509.CertPool // verify the server; nil: those of the system
	Token   auth.Secret    // sent as Authorization: Bearer …; "": none
	Timeout time.Duration  // of one request; 0: 5 s
	StaleOK time.Duration  // see auth.Remote
}

const (
	defaultTimeout = 5 * time.Second
	maxAnswer      = 64 << 10 // octets, and as many of the header
	maxConns       = 8
)

// Source is a program. It is safe for concurrent use.
type Source struct {
	Options
	client *http.Client
}

// New makes a source, and connects to nothing yet. The error is a *mail.KeyError.
func New(o Options) (*Source, error) {
	if err := CheckURL(o.URL); err != nil {
		return nil, &mail.KeyError{Key: "url", Msg: err.Error()}
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: o.Timeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: o.Timeout, MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: maxConns,
		IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer, DisableCompression: true,
		ForceAttemptHTTP2: true,
	}
	return &Source{Options: o, client: &http.Client{Transport: transport, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// CheckURL says what is wrong with an address.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New(`is no address, write one such as "https://accounts.example.com/check"`)
	case u.User != nil:
		return errors.New("has a login in it, write that as token")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("has the scheme %q, write https://", u.Scheme)
	case !local.Host(u.Hostname()):
		return errors.New("would send passwords in clear over the network, write https:// (http:// is for this " +
			"machine only: localhost, 127.0.0.1, [::1])")
	}
	return nil
}

// Name implements auth.Source.
func (s *Source) Name() string { return s.Options.Name }

// StaleOK implements auth.Remote.
func (s *Source) StaleOK() time.Duration { return s.Options.StaleOK }

// Close ends idle connections.
func (s *Source) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// Probe implements auth.Remote.
func (s *Source) Probe(ctx context.Context) error {
	_, err := s.ask(ctx, "", "")
	if errors.Is(err, auth.ErrUnknownLogin) || errors.Is(err, auth.ErrWrongPassword) {
		return nil
	}
	if err == nil {
		return errors.New("it lets an empty login in: every answer is yes")
	}
	return err
}

// Verify implements auth.Source.
func (s *Source) Verify(ctx context.Context, login, password string) (auth.Identity, error) {
	if login == "" || password == "" {
		return auth.Identity{}, auth.ErrWrongPassword
	}
	return s.ask(ctx, login, password)
}

func (s *Source) ask(ctx context.Context, login, password string) (auth.Identity, error) {
	body, err := json.Marshal(struct {
		Login    string `json:"login"`
		Password string `json:"password"`
	}{login, password})
	if err != nil {
		return auth.Identity{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(body))
	if err != nil {
		return auth.Identity{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "postern")
	if s.Token != "" {
		r.Header.Set("Authorization", "Bearer "+string(s.Token))
	}
	response, err := s.client.Do(r)
	if err != nil {
		var e *url.Error // without the address, which may have a secret in it
		if errors.As(err, &e) {
			err = e.Err
		}
		return auth.Identity{}, err
	}
	defer response.Body.Close()
	return readAnswer(response, login)
}

func readAnswer(response *http.Response, login string) (auth.Identity, error) {
	if response.StatusCode != http.StatusOK {
		return auth.Identity{}, fmt.Errorf("it answers with status %d, only 200 is an answer", response.StatusCode)
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if kind != "application/json" {
		return auth.Identity{}, fmt.Errorf("its answer is of type %q, only application/json is understood",
			mail.Printable(mail.Cut(kind, 64)))
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return auth.Identity{}, err
	case len(data) > maxAnswer:
		return auth.Identity{}, fmt.Errorf("its answer is longer than %d octets", maxAnswer)
	}
	return parseAnswer(data, login)
}

// answer is what the program says.
type answer struct {
	Result   string   `json:"result"`
	Reason   string   `json:"reason"`
	Login    string   `json:"login"`
	Groups   []string `json:"groups"`
	Senders  []string `json:"senders"`
	Networks []string `json:"networks"`
}

func parseAnswer(data []byte, login string) (auth.Identity, error) {
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return auth.Identity{}, errors.New("its answer is not the JSON that was agreed on")
	}
	why := ""
	if a.Reason != "" {
		why = ": " + mail.Printable(mail.Cut(a.Reason, 200))
	}
	switch a.Result {
	case "ok":
		return a.identity(login)
	case "unknown":
		return auth.Identity{}, auth.ErrUnknownLogin
	case "wrong":
		return auth.Identity{}, auth.OfLogin(a.Login, fmt.Errorf("%w%s", auth.ErrWrongPassword, why))
	case "locked":
		return auth.Identity{}, auth.OfLogin(a.Login, fmt.Errorf("%w%s", auth.ErrLocked, why))
	case "later":
		return auth.Identity{}, fmt.Errorf("%w%s", auth.ErrUndecided, why)
	}
	return auth.Identity{}, fmt.Errorf("its result is %q, which is not known", mail.Printable(mail.Cut(a.Result, 64)))
}

func (a *answer) identity(login string) (id auth.Identity, err error) {
	id = auth.Identity{Login: login, Groups: a.Groups, Senders: a.Senders}
	if a.Login != "" {
		own, ok := auth.NormalizeLogin(a.Login)
		if !ok || strings.TrimSpace(own) != own {
			return auth.Identity{}, errors.New("its answer has a login that cannot be")
		}
		id.Login = own
	}
	if id.Networks, err = fields.Networks(a.Networks); err == nil {
		err = errors.Join(fields.Groups(a.Groups), fields.Senders(a.Senders))
	}
	if err == nil && a.Networks != nil && len(a.Networks) == 0 {
		err = errors.New("networks is empty: leave it out for any")
	}
	if err != nil {
		return auth.Identity{}, fmt.Errorf("its answer: %w", err)
	}
	return id, nil
}
