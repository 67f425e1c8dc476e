package auth

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"postern/mail"
)

// Exchange is one SASL exchange on the server's side, with octets already decoded from base64. It
// belongs to one connection's goroutine and ends with the first reply that is not zero.
type Exchange interface {
	// Next takes the client's response, nil when there is none yet (no initial response), and
	// returns either a challenge to send or a final reply: 235 when the client is authenticated.
	Next(ctx context.Context, response []byte) (challenge []byte, reply mail.Reply)
	// Refusal returns the login as far as the client has named it, octets as they came, and why Next refused it without
	// asking the CheckFunc, nil if it did not.
	Refusal() (login string, why error)
}

// CheckFunc checks a credential: 235, or why not. authzid is empty or the login.
type CheckFunc func(ctx context.Context, authzid, login, password string) mail.Reply

// The mechanisms.
const (
	Plain       = "PLAIN"
	Login       = "LOGIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramPlus   = "SCRAM-SHA-256-PLUS"
	OAuthBearer = "OAUTHBEARER"
	XOAuth2     = "XOAUTH2"
	External    = "EXTERNAL"
	CramMD5     = "CRAM-MD5"
)

// Mechanisms are the names that NewExchange knows.
var Mechanisms = []string{Plain, Login, ScramSHA256, ScramPlus, OAuthBearer, XOAuth2, External, CramMD5}

// Checks is what exchanges ask of whoever keeps the accounts. Replies that are not zero end an exchange.
type Checks struct {
	Password CheckFunc
	// Bindings are those of the connection, none where -PLUS is not offered.
	Bindings []Binding
	// Scram begins a trial and ScramEnd ends it; Done is then called once the client has heard the server's proof.
	Scram    func(ctx context.Context, login string) (*ScramTrial, mail.Reply)
	ScramEnd func(ctx context.Context, t *ScramTrial, right bool, proof string) (Identity, mail.Reply)
	Done     func(Identity) mail.Reply
	// Token checks a bearer token. login is empty where the client names none. A challenge goes with a refusal.
	Token func(ctx context.Context, login, token string) (mail.Reply, TokenChallenge)
	// Certificate checks the certificate that the client has shown in TLS. login is empty where the client names none.
	Certificate func(ctx context.Context, login string) mail.Reply
	// Cram checks an answer to a challenge of CRAM-MD5, which names Hostname.
	Cram     func(ctx context.Context, login string, answer CramAnswer) mail.Reply
	Hostname string
}

// ErrMechanism: we do not have the mechanism; RFC 4954 §4 has 504 5.5.4 for it.
var ErrMechanism = errors.New("unknown authentication mechanism")

// NewExchange begins an exchange. The name of the mechanism counts in any case (RFC 4422 §3.1 has it
// in capitals; clients do not).
func NewExchange(mechanism string, checks Checks) (Exchange, error) {
	switch strings.ToUpper(mechanism) {
	case Plain:
		return &plain{check: checks.Password}, nil
	case Login:
		return &login{check: checks.Password}, nil
	case ScramSHA256:
		return &scramExchange{checks: checks}, nil
	case ScramPlus:
		return &scramExchange{checks: checks, plus: true}, nil
	case OAuthBearer:
		return &oauthExchange{check: checks.Token}, nil
	case XOAuth2:
		return &oauthExchange{check: checks.Token, google: true}, nil
	case External:
		return &externalExchange{check: checks.Certificate}, nil
	case CramMD5:
		return &cramExchange{check: checks.Cram, hostname: checks.Hostname}, nil
	}
	return nil, ErrMechanism
}

// The replies to what no account can have. RFC 4954 §4 has 501 5.5.2 for a response that cannot be understood.
var (
	replyNoName     = mail.R(535, "5.7.8", "the user name is empty; enter it in the account settings")
	replyNoPassword = mail.R(535, "5.7.8", "the password is empty; enter it")
	replyParts      = mail.R(501, "5.5.2", "the login is malformed: PLAIN has three parts with NUL octets between them")
	replyCharset    = mail.R(501, "5.5.2", "the user name or password has letters in another character set than "+
		"UTF-8; use plain letters and digits there")
	replyControls = mail.R(501, "5.5.2", "the user name or password has a line end or another control character "+
		"in it; type it instead of pasting it")
	replyEnded = mail.R(503, "5.5.1", "this login has ended; begin another")
)

// The reasons for them.
var (
	errNoName     = errors.New("the login is empty")
	errNoPassword = errors.New("the password is empty")
	errTooLong    = errors.New("the login or the password is longer than any can be")
	errParts      = errors.New("the response does not have the three parts of PLAIN")
	errCharset    = errors.New("the login or the password is not UTF-8; the client sends Latin-1, perhaps")
	errControls   = errors.New("the login or the password has a line end or another control character in it")
	errAuthzid    = errors.New("the client asks to act for another login (authorization identity)")
	errEnded      = errors.New("the client goes on with an exchange that has ended")
)

// outcome is what an exchange tells of itself.
type outcome struct {
	name string
	why  error
}

// Refusal implements Exchange.
func (o *outcome) Refusal() (login string, why error) { return o.name, o.why }

func (o *outcome) refuse(r mail.Reply, why error) ([]byte, mail.Reply) {
	o.why = why
	return nil, r
}

// plain is RFC 4616: [authzid] NUL authcid NUL passwd, in one response.
type plain struct {
	check    CheckFunc
	prompted bool
	ended    bool
	outcome
}

func (p *plain) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	if p.ended {
		return p.refuse(replyEnded, errEnded)
	}
	if response == nil && !p.prompted {
		p.prompted = true
		return []byte{}, mail.Reply{}
	}
	p.ended = true
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return p.refuse(replyParts, errParts)
	}
	authzid, name, password := string(parts[0]), string(parts[1]), string(parts[2])
	p.name = name
	if reply, why := checkShape(name, password); why != nil {
		return p.refuse(reply, why)
	}
	if authzid != "" && mail.LowerASCII(authzid) != mail.LowerASCII(name) {
		return p.refuse(replyRefused, errAuthzid) // nobody acts for somebody else
	}
	return nil, p.check(ctx, authzid, name, password)
}

// login is the LOGIN mechanism (draft-murchison-sasl-login-00), which .NET and Outlook need: two
// prompts, in the words that every client knows.
type login struct {
	check CheckFunc
	step  int
	outcome
}

func (l *login) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	switch {
	case l.step == 0 && response == nil:
		l.step = 1
		return []byte("Username:"), mail.Reply{}
	case l.step <= 1: // the initial response is the login
		l.step = 2
		if len(response) > MaxLength {
			l.step = 3
			return l.refuse(replyRefused, errTooLong)
		}
		l.name = string(response)
		return []byte("Password:"), mail.Reply{}
	case l.step == 2:
		l.step = 3
		password := string(response)
		if reply, why := checkShape(l.name, password); why != nil {
			return l.refuse(reply, why)
		}
		return nil, l.check(ctx, "", l.name, password)
	}
	return l.refuse(replyEnded, errEnded)
}

// checkShape refuses what cannot be a credential of anybody, so that nothing odd reaches a source.
func checkShape(name, password string) (mail.Reply, error) {
	switch {
	case name == "":
		return replyNoName, errNoName
	case password == "":
		return replyNoPassword, errNoPassword
	case len(name) > MaxLength || len(password) > MaxLength:
		return replyRefused, errTooLong
	case !utf8.ValidString(name) || !utf8.ValidString(password):
		return replyCharset, errCharset
	case !printable(name) || !printable(password):
		return replyControls, errControls
	}
	return mail.Reply{}, nil
}
