package oauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"postern/internal/periodic"
	"postern/mail"
)

// Prompt is what to show the person who consents.
type Prompt struct {
	Flow Flow
	// URL is to be opened in a browser: on any device for DeviceCode, and best on this machine for AuthorizationCode.
	URL string
	// Code is to be entered there (DeviceCode).
	Code string
	// Complete is URL with the code in it, if the server makes such.
	Complete string
	// Listening is where the browser is awaited (AuthorizationCode). Empty: only what is pasted counts.
	Listening string
	// Paste: the address that the browser ends at may be given to Consent.Paste, also when the page did not open.
	Paste bool
	// Expires is when this is of no use any more; zero is not known.
	Expires time.Time
}

const (
	// consentLife bounds a consent where the server does not.
	consentLife = 15 * time.Minute
	// RFC 8628 §3.2 and §3.5.
	defaultInterval = 5 * time.Second
	slowDown        = 5 * time.Second
	maxInterval     = 5 * time.Minute
)

// Consent is one person's consent under way. Show Prompt, then Wait; Close in any case.
type Consent struct {
	s      *Source
	prompt Prompt
	conf   *oauth2.Config

	device   *oauth2.DeviceAuthResponse // DeviceCode
	interval time.Duration

	state, verifier string // AuthorizationCode
	loop            *loopback
	redirected      chan redirect
}

// redirect is what the browser brings back.
type redirect struct {
	code string
	err  error
}

// Consent begins to ask for consent. flow is DeviceCode or AuthorizationCode; "" is the configured one. Where tenants
// block one of them, the other often works, and the grant is the same.
func (s *Source) Consent(ctx context.Context, flow Flow) (*Consent, error) {
	flow = cmp.Or(flow, s.o.Flow)
	switch {
	case s.o.Flow == RefreshToken:
		return nil, errors.New("the flow refresh-token has its consent from elsewhere; put a new refresh_token in " +
			"the configuration, or choose flow authorization-code")
	case !s.o.Flow.Delegated():
		return nil, fmt.Errorf("the flow %s needs nobody's consent: there is nothing to log in to", s.o.Flow)
	}
	o := s.o
	o.Flow = flow
	if bad := o.Check(); len(bad) > 0 {
		return nil, bad[0]
	}
	c := &Consent{s: s, conf: &oauth2.Config{
		ClientID: s.o.ClientID, ClientSecret: s.o.ClientSecret.Reveal(), Endpoint: s.p.endpoint, Scopes: s.p.scopes,
	}}
	if flow == DeviceCode {
		return c, c.startDevice(ctx)
	}
	return c, c.startCode()
}

// Prompt is what to show.
func (c *Consent) Prompt() Prompt { return c.prompt }

// Close ends the listener.
func (c *Consent) Close() {
	if c.loop != nil {
		c.loop.close()
	}
}

// Wait waits until the person has consented and the grant is stored. The error is an *Error, or ctx's.
func (c *Consent) Wait(ctx context.Context) error {
	if !c.prompt.Expires.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, c.prompt.Expires, errTooLate)
		defer cancel()
	}
	var r *response
	var err error
	if c.prompt.Flow == DeviceCode {
		r, err = c.poll(ctx)
	} else {
		r, err = c.exchange(ctx)
	}
	if err != nil {
		if errors.Is(context.Cause(ctx), errTooLate) {
			return c.s.fault("expired_token", "nobody consented in time", fixLogin)
		}
		return err
	}
	return c.store(ctx, r)
}

var errTooLate = errors.New("the time to consent is over")

func (c *Consent) startDevice(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d, err := c.conf.DeviceAuth(c.s.with(ctx))
	if err != nil {
		return c.s.explain(ctx, err, time.Now())
	}
	if err := checkDevice(d); err != nil {
		return pressureError(codeGarbled, err.Error(), nil)
	}
	c.device, c.interval = d, defaultInterval
	if d.Interval > 0 {
		c.interval = min(time.Duration(min(d.Interval, 3600))*time.Second, maxInterval)
	}
	expires := time.Now().Add(consentLife)
	if !d.Expiry.IsZero() && d.Expiry.Before(time.Now().Add(day)) {
		expires = d.Expiry
	}
	c.prompt = Prompt{Flow: DeviceCode, URL: d.VerificationURI, Code: d.UserCode, Complete: d.VerificationURIComplete,
		Expires: expires}
	return nil
}

// checkDevice distrusts what goes to a person's terminal and browser.
func checkDevice(d *oauth2.DeviceAuthResponse) error {
	if d.VerificationURIComplete != "" && !isSafe(d.VerificationURIComplete) {
		d.VerificationURIComplete = ""
	}
	switch {
	case d.DeviceCode == "" || d.UserCode == "" || len(d.UserCode) > maxCode ||
		mail.Printable(d.UserCode) != d.UserCode:
		return errors.New("the authorization server gives no code to show")
	case !isSafe(d.VerificationURI) || !visible(d.VerificationURI):
		return errors.New("the authorization server gives no address to show")
	}
	return nil
}

// poll asks until the person has decided (RFC 8628 §3.4, §3.5).
func (c *Consent) poll(ctx context.Context) (*response, error) {
	wait := c.interval
	for {
		if periodic.Sleep(ctx, wait) != nil {
			return nil, context.Cause(ctx)
		}
		r, err := c.ask(ctx, url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {c.device.DeviceCode},
		})
		if err == nil {
			return r, nil
		}
		switch {
		case err.oauthCode == "authorization_pending":
			wait = c.interval
		case err.oauthCode == "slow_down":
			c.interval += slowDown // for this and all later requests
			wait = c.interval
		case err.Temporary(): // §3.5: back off exponentially while the server cannot be reached
			wait = min(max(2*wait, err.retryAfter), maxInterval)
		default:
			return nil, err
		}
	}
}

// ask is one request within the bound of one request.
func (c *Consent) ask(ctx context.Context, v url.Values) (*response, *Error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var scopes []string
	// Its documentation lists scope with a code; RFC 6749 §4.1.3 and RFC 8628 §3.4 do not know it there.
	if c.s.p.microsoft {
		scopes = c.conf.Scopes
	}
	return c.s.request(ctx, v, scopes)
}

func (c *Consent) startCode() error {
	c.state, c.verifier = oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	c.redirected = make(chan redirect, 1)
	var err error
	if c.loop, err = listenLoopback(c.take); err != nil {
		return fmt.Errorf("listen on loopback: %w", err)
	}
	c.conf.RedirectURL = "http://" + c.s.p.loopback + ":" + c.loop.port
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(c.verifier)} // RFC 7636; RFC 8252 §6 wants it always
	for key := range c.s.p.authParams {
		options = append(options, oauth2.SetAuthURLParam(key, c.s.p.authParams.Get(key)))
	}
	if c.s.o.Username != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", c.s.o.Username))
		if c.s.p.microsoft {
			options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
		}
	}
	c.prompt = Prompt{Flow: AuthorizationCode, URL: c.conf.AuthCodeURL(c.state, options...), Paste: true,
		Expires:   time.Now().Add(consentLife),
		Listening: c.conf.RedirectURL}
	return nil
}

// take reads the query of the redirect (RFC 6749 §4.1.2). What does not carry our state is not from our server, and
// changes nothing: anybody can send a browser here.
func (c *Consent) take(q url.Values) error {
	if !NewSecret(q.Get("state")).Equal(NewSecret(c.state)) {
		return errors.New("this address is not from the login that is waited for")
	}
	r := redirect{code: q.Get("code")}
	switch {
	case q.Get("error") != "":
		a := answer{status: 400, code: mail.Cut(mail.Printable(q.Get("error")), maxCode),
			detail: mail.Cut(mail.Printable(q.Get("error_description")), maxDetail)}
		if n, ok := aadsts(a.detail); ok {
			a.numbers = []int{n}
		}
		e := classify(a)
		e.Fix = c.s.names.Replace(e.Fix)
		r.err = e
	case r.code == "":
		return errors.New("there is no code in this address")
	}
	select {
	case c.redirected <- r:
	default: // one is enough
	}
	return r.err
}

// Paste takes what the person copied from the browser: the address it ended at, its query, or the code alone. PKCE ties
// a code to this Consent where the state is missing. An error says what to paste instead; Wait goes on.
func (c *Consent) Paste(text string) error {
	if c.prompt.Flow != AuthorizationCode {
		return errors.New("nothing is to be pasted: enter the code on the page")
	}
	text = strings.TrimSpace(text)
	if _, query, ok := strings.Cut(text, "?"); ok {
		text = query
	}
	text, _, _ = strings.Cut(text, "#")
	if q, err := url.ParseQuery(text); err == nil && (q.Has("code") || q.Has("error")) {
		return c.take(q)
	}
	if text == "" || len(text) > maxToken || !visible(text) || strings.ContainsAny(text, "&=") ||
		strings.Contains(text, "://") {
		return errors.New("paste the whole address that the browser shows in the end; it has code= in it")
	}
	return c.take(url.Values{"code": {text}, "state": {c.state}})
}

// exchange waits for the browser and turns the code into tokens.
func (c *Consent) exchange(ctx context.Context) (*response, error) {
	var r redirect
	select {
	case r = <-c.redirected:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if r.err != nil {
		return nil, r.err
	}
	got, err := c.ask(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {r.code},
		"redirect_uri": {c.conf.RedirectURL}, "code_verifier": {c.verifier},
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// store seals the grant. It replaces whatever is there: the person has just decided.
func (c *Consent) store(ctx context.Context, r *response) error {
	if r.refresh.IsZero() {
		return c.s.fault("no_refresh_token",
			"the authorization server gave no refresh token, so that the consent would last an hour",
			"add offline_access to scopes, or what the provider calls it")
	}
	now := time.Now()
	g := &grant{ClientID: c.s.o.ClientID, Consented: now, Scopes: c.conf.Scopes}
	g.take(r, now)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveBound)
	defer cancel()
	for {
		_, version, err := c.s.o.Grants.LoadGrant(ctx, c.s.o.Upstream)
		if err != nil && !errors.Is(err, ErrNoGrant) {
			return pressureError(codeStore, "the store does not answer", err)
		}
		_, err = c.s.saveGrant(ctx, g, version)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrGrantChanged) {
			return pressureError(codeStore, "the store does not take the consent", err)
		}
	}
	if err := c.s.o.Grants.Consented(ctx); err != nil { // they look at the store now and then
		c.s.o.Logger.Warn("other processes do not hear of the consent at once", "err", err)
	}
	c.s.learn(g)
	c.s.Forget()
	return nil
}
