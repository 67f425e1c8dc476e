package auth

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"postern/mail"
)

// Exchange is one SASL exchange on the server's side, with octets already decoded from base64. It
// belongs to one connection's goroutine and ends with the first reply that is not zero.
type Exchange interface {
	// Next takes the client's response, nil when there is none yet (no initial response), and
	// returns either a challenge to send or a final reply: 235 when the client is authenticated.
	Next(ctx context.Context, response []byte) (challenge []byte, reply mail.Reply)
}

// CheckFunc judges a credential: 235, or why not. authzid is empty or the login.
type CheckFunc func(ctx context.Context, authzid, login, password string) mail.Reply

// Mechanisms are the names that NewExchange knows, in the order in which they should be offered.
var Mechanisms = []string{"PLAIN", "LOGIN"}

// ErrMechanism: we do not have the mechanism; RFC 4954 §4 has 504 5.5.4 for it.
var ErrMechanism = errors.New("unknown authentication mechanism")

// NewExchange begins an exchange. The name of the mechanism counts in any case (RFC 4422 §3.1 has it
// in capitals; clients do not).
func NewExchange(mechanism string, check CheckFunc) (Exchange, error) {
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		return &plain{check: check}, nil
	case "LOGIN":
		return &login{check: check}, nil
	}
	return nil, ErrMechanism
}

var (
	// replyMalformed: RFC 4954 §4 has 501 5.5.2 for a response that cannot be understood.
	replyMalformed = mail.R(501, "5.5.2", "malformed AUTH response")
	replyEnded     = mail.R(503, "5.5.1", "the AUTH exchange has ended")
)

// plain is RFC 4616: [authzid] NUL authcid NUL passwd, in one response.
type plain struct {
	check    CheckFunc
	prompted bool
	ended    bool
}

func (p *plain) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	if p.ended {
		return nil, replyEnded
	}
	if response == nil && !p.prompted {
		p.prompted = true
		return []byte{}, mail.Reply{}
	}
	p.ended = true
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, replyMalformed
	}
	authzid, name, password := string(parts[0]), string(parts[1]), string(parts[2])
	if reply := checkShape(name, password); !reply.IsZero() {
		return nil, reply
	}
	if authzid != "" && lowerASCII(authzid) != lowerASCII(name) {
		return nil, replyRefused // nobody acts for somebody else
	}
	return nil, p.check(ctx, authzid, name, password)
}

// login is the LOGIN mechanism (draft-murchison-sasl-login-00), which .NET and Outlook need: two
// prompts, in the words that every client knows.
type login struct {
	check CheckFunc
	step  int
	name  string
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
			return nil, replyRefused
		}
		l.name = string(response)
		return []byte("Password:"), mail.Reply{}
	case l.step == 2:
		l.step = 3
		password := string(response)
		if reply := checkShape(l.name, password); !reply.IsZero() {
			return nil, reply
		}
		return nil, l.check(ctx, "", l.name, password)
	}
	return nil, replyEnded
}

// checkShape refuses what cannot be a credential of anybody, so that nothing odd reaches a source.
func checkShape(name, password string) mail.Reply {
	if name == "" || password == "" || len(name) > MaxLength || len(password) > MaxLength {
		return replyRefused
	}
	if !printable(name) || !printable(password) {
		return replyMalformed
	}
	return mail.Reply{}
}
