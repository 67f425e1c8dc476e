package smtp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/replies"
)

// OAuthMechanisms are those that send an access token, in order of preference. Exchange Online knows only the first.
var OAuthMechanisms = []string{"XOAUTH2", "OAUTHBEARER"}

var (
	errTokenSyntax    = errors.New("the token or the user name has octets that would end it")
	errErrorChallenge = errors.New("the upstream explained its refusal in an error challenge")
)

// oauthConfig checks what goes with Token: nobody but the configured host, proven by its certificate, may see a token
// (RFC 6750 §5.3, RFC 7628 §4).
func (c *Config) oauthConfig() error {
	switch {
	case c.Token == nil:
		return nil
	case c.TLS == upstream.TLSNone:
		return errors.New("tokens need TLS")
	case c.InsecureSkipVerify:
		return errors.New("tokens need a certificate that verifies, so insecure_skip_verify cannot stand beside oauth")
	}
	c.Mechanisms = slices.DeleteFunc(slices.Clone(c.Mechanisms),
		func(name string) bool { return !slices.Contains(OAuthMechanisms, name) })
	if len(c.Mechanisms) == 0 {
		c.Mechanisms = OAuthMechanisms
	}
	return nil
}

// openWithToken opens a connection that logs in with a token. A refused token is dropped, another one fetched and tried
// once, on a connection of its own: servers differ in what they allow after a 535.
func (u *Upstream) openWithToken(ctx context.Context, identity string, each step) (*conn, *fault) {
	token, f := u.token(ctx, identity, each)
	if f != nil {
		return nil, f
	}
	c, f := u.openAs(ctx, identity, token, each)
	if f == nil || !f.tokenRefused() {
		return c, f
	}
	u.cfg.DropToken(identity, token)
	another, fetch := u.token(ctx, identity, each)
	if fetch != nil {
		return nil, fetch
	}
	if another == token { // there is none but this, and it was refused
		return nil, f
	}
	u.log.Info("upstream refused the access token, another one is tried", "identity", identity, "reply",
		f.reply.String())
	return u.openAs(ctx, identity, another, each)
}

// tokenRefused reports the reply that a token gets which has ended or was taken back.
func (f *fault) tokenRefused() bool { return f.stage == mail.StageAuth && f.reply.Code == 535 }

// token fetches before anybody is dialled: slots at the provider are few, and without a token a connection is of no
// use.
func (u *Upstream) token(ctx context.Context, identity string, each step) (token string, f *fault) {
	f = each("token", func() (string, *fault) {
		if identity == "" {
			return "", &fault{stage: mail.StageAuth, class: mail.AccountFault, ours: true,
				reply: mail.R(454, "4.7.0", "no mailbox is named to log in as")}
		}
		var err error
		if token, err = u.cfg.Token(ctx, identity); err != nil {
			return "", tokenFault(ctx, err)
		}
		return "for " + identity, nil
	})
	return token, f
}

func tokenFault(ctx context.Context, err error) *fault {
	f := &fault{stage: mail.StageAuth, class: mail.BackPressure,
		reply: mail.R(454, "4.7.0", "there is no access token now"), err: err}
	if known, ok := errors.AsType[upstream.TokenError](err); ok {
		f.reply, f.retryAfter, f.err = known.Reply(), known.RetryAfter(), known.Unwrap()
		f.reply.Text = mail.Cut(mail.Printable(f.reply.Text), replies.MaxText)
		if known.Class() == mail.AccountFault {
			f.class = mail.AccountFault
		}
	}
	if ctx.Err() != nil && f.class == mail.BackPressure {
		f.class = mail.Deferral // we gave up, which says nothing about anybody
	}
	return f
}

// tokenMechanism makes the client for one exchange, nil for a name that is not ours.
func (c *conn) tokenMechanism(name, identity, token string) sasl.Client {
	switch name {
	case "XOAUTH2":
		return &xoauth2Client{user: identity, token: token}
	case sasl.OAuthBearer:
		return &bearerClient{user: identity, token: token, host: c.u.cfg.Host, port: c.u.cfg.Port}
	}
	return nil
}

// bearer is the field that both mechanisms share. Both end it with ^A.
func bearer(user, token string) (string, error) {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) ||
		strings.ContainsFunc(user, control) {
		return "", errTokenSyntax
	}
	return "auth=Bearer " + token + "\x01\x01", nil
}

// problem is what an error challenge says (RFC 7628 §3.2.2, and Google's for XOAUTH2). Only the status is kept: it is a
// word or a number, and all that helps.
type problem struct {
	seen   bool
	status string
}

func (p *problem) read(challenge []byte) {
	p.seen = true
	var j struct{ Status string }
	if json.Unmarshal(challenge, &j) == nil {
		p.status = mail.Printable(j.Status)
	}
}

func (p *problem) challenged() error {
	switch {
	case !p.seen:
		return nil
	case p.status == "":
		return errErrorChallenge
	}
	return fmt.Errorf("%w: status %q", errErrorChallenge, mail.Cut(p.status, 64))
}

// xoauth2Client is XOAUTH2 (https://developers.google.com/workspace/gmail/imap/xoauth2-protocol). It always waits for
// the first challenge, as Microsoft documents it: tokens of 1.5 to 3 KB do not fit a command line.
type xoauth2Client struct {
	user, token string
	sent        bool
	problem
}

func (*xoauth2Client) Start() (string, []byte, error) { return "XOAUTH2", nil, nil }

func (x *xoauth2Client) Next(challenge []byte) ([]byte, error) {
	switch {
	case x.seen:
		return nil, errUnexpectedChallenge
	case x.sent: // an explanation: an empty line asks for the verdict
		x.read(challenge)
		return []byte{}, nil
	}
	auth, err := bearer(x.user, x.token)
	if err != nil {
		return nil, err
	}
	x.sent = true
	return []byte("user=" + x.user + "\x01" + auth), nil
}

func (x *xoauth2Client) Finish() error { return finished(x.sent && !x.seen) }

// bearerClient is OAUTHBEARER (RFC 7628).
type bearerClient struct {
	user, token, host string
	port              int
	problem
}

// saslName escapes what ends an authorization identity (RFC 5801 §4).
var saslName = strings.NewReplacer("=", "=3D", ",", "=2C")

func (b *bearerClient) Start() (string, []byte, error) {
	auth, err := bearer(b.user, b.token)
	initial := "n,a=" + saslName.Replace(b.user) + ",\x01host=" + b.host + "\x01port=" + strconv.Itoa(b.port) + "\x01" +
		auth
	return sasl.OAuthBearer, []byte(initial), err
}

// Unread: a challenge that says nothing is no error.
func (*bearerClient) Unread(challenge []byte) bool { return len(challenge) == 0 }

func (b *bearerClient) Next(challenge []byte) ([]byte, error) {
	if b.seen {
		return nil, errUnexpectedChallenge
	}
	b.read(challenge)
	return []byte{1}, nil // RFC 7628 §3.2.3
}

func (b *bearerClient) Finish() error { return finished(!b.seen) }

// finished: a server that says 235 without the token, or behind its own error, is out of step.
func finished(properly bool) error {
	if !properly {
		return errUnexpectedChallenge
	}
	return nil
}

// explainToken says what a login with a token that failed means, and what a person can look at.
func (u *Upstream) explainToken(f *fault, identity string) string {
	switch {
	case f.tokenRefused():
		return "The upstream refuses the access token for " + quote(identity) +
			", although the authorization server gave it. The mailbox may not exist or have SMTP AUTH switched off, " +
			"the application may lack the permission to send as it, or the person who consented may not be this " +
			"mailbox. It said: " + f.reply.String()
	case f.reply.Code == 501:
		return "The upstream does not take " + quote(identity) + " for a mailbox. It said: " + f.reply.String()
	}
	return f.reply.Text
}
