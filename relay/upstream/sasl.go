package upstream

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"postern/mail"
)

// Mechanism is the client's side of one SASL exchange (RFC 4422). It serves for one connection.
type Mechanism interface {
	Name() string
	// Start returns the initial response. nil: there is none, AUTH is sent alone and the first challenge waited for
	// (LOGIN, and tokens too long for a command line).
	Start() ([]byte, error)
	// Next answers a challenge. An error cancels the exchange.
	Next(challenge []byte) ([]byte, error)
	// Finish is called at 235: an error means that the server has not proved what it must.
	Finish() error
}

// DefaultMechanisms in order of preference: what does not show the password first, then what every provider has. CRAM-MD5 is
// last because it says nothing about the server and asks it to keep passwords readable.
var DefaultMechanisms = []string{"SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"}

func knownMechanism(name string) bool {
	return slices.Contains(DefaultMechanisms, name) || slices.Contains(OAuthMechanisms, name)
}

// maxAuthSteps bounds the challenges of one exchange.
const maxAuthSteps = 8

var (
	errUnexpectedChallenge = errors.New("challenge out of turn")
	errNoMechanism         = errors.New("no common mechanism")
)

// mechanism makes the client for one exchange, nil for a name that is not ours or does not fit the credentials.
func (u *Upstream) mechanism(name string) Mechanism {
	user, password := u.cfg.Username, u.cfg.Password
	switch name {
	case "PLAIN":
		return &plainClient{user, password}
	case "LOGIN":
		return &loginClient{answers: []string{user, password}}
	case "CRAM-MD5":
		return &cramClient{user, password}
	case "SCRAM-SHA-256":
		if !scramFits(user, password) {
			return nil
		}
		return newScram(user, password, scramNonce(), &u.salted)
	}
	return nil
}

// auth logs in with the first configured mechanism that is offered. A refusal is final: each further attempt would count
// towards a lockout.
func (c *conn) auth(identity, token string) (string, *fault) {
	cfg := &c.u.cfg
	if !c.secure && cfg.TLS != TLSNone { // cannot happen; if it does, no password goes out
		return "", c.accountFault(mail.StageAuth, "4.7.11", nil, "no verified TLS, so no login")
	}
	if cfg.Token == nil && identity != cfg.Username {
		return "", c.accountFault(mail.StageAuth, "4.7.8", nil, "there are no credentials for the upstream identity "+mail.Printable(identity))
	}
	for _, name := range cfg.Mechanisms {
		if !c.ext.offers(name) {
			continue
		}
		if cfg.Token != nil {
			return name + " as " + identity, c.exchangeToken(c.tokenMechanism(name, identity, token))
		}
		if m := c.u.mechanism(name); m != nil {
			return name + " as " + identity, c.exchange(m)
		}
	}
	offer := "none"
	if len(c.ext.auth) > 0 {
		offer = strings.Join(c.ext.auth, " ")
	}
	return "", c.accountFault(mail.StageAuth, "4.7.9", errNoMechanism, c.peer+" offers no AUTH mechanism that we may use; it offers: "+offer)
}

// maxCommandLine is what AUTH with its initial response may fill (RFC 4954 §4 with RFC 5321 §4.5.3.1.4).
const maxCommandLine = 512

func (c *conn) exchange(m Mechanism) *fault {
	initial, err := m.Start()
	if err != nil {
		return c.accountFault(mail.StageAuth, "4.7.0", err, m.Name()+" cannot be started")
	}
	line, waiting := "AUTH "+m.Name(), false
	if initial != nil {
		encoded := encodeResponse(initial)
		if waiting = len(line)+1+len(encoded)+2 > maxCommandLine; !waiting {
			line += " " + encoded
		}
	}
	r, f := c.command(mail.StageAuth, line+"\r\n")
	for range maxAuthSteps {
		if f != nil {
			return f
		}
		if r.Code != 334 {
			return c.authenticated(m, r)
		}
		response := initial
		if !waiting {
			if response, err = m.Next(decodeChallenge(r)); err != nil {
				c.command(mail.StageAuth, "*\r\n") // RFC 4954 §4: cancel; the answer does not matter
				return c.accountFault(mail.StageAuth, "4.7.0", err, c.peer+" did not keep to "+m.Name()+": "+err.Error())
			}
		}
		waiting = false
		r, f = c.command(mail.StageAuth, base64.StdEncoding.EncodeToString(response)+"\r\n")
	}
	return c.accountFault(mail.StageAuth, "4.7.0", errUnexpectedChallenge, c.peer+" does not end the "+m.Name()+" exchange")
}

func (c *conn) authenticated(m Mechanism, r mail.Reply) *fault {
	if r.Code != 235 {
		return c.refused(mail.StageAuth, r)
	}
	if err := m.Finish(); err != nil {
		return c.accountFault(mail.StageAuth, "4.7.0", err, c.peer+" accepted the login but did not prove that it knows the password")
	}
	return nil
}

// encodeResponse is for an initial response, where empty is "=" (RFC 4954 §4).
func encodeResponse(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// decodeChallenge takes the text as it is where it is no base64: some servers prompt in plain words.
func decodeChallenge(r mail.Reply) []byte {
	if b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Text)); err == nil {
		return b
	}
	return []byte(r.Text)
}

// plainClient is PLAIN (RFC 4616).
type plainClient struct{ user, password string }

func (*plainClient) Name() string { return "PLAIN" }

func (p *plainClient) Start() ([]byte, error) {
	return []byte("\x00" + p.user + "\x00" + p.password), nil
}

func (p *plainClient) Next([]byte) ([]byte, error) { return nil, errUnexpectedChallenge }

func (*plainClient) Finish() error { return nil }

// loginClient is LOGIN (draft-murchison-sasl-login): user and password in turn, whatever the prompts say.
type loginClient struct{ answers []string }

func (*loginClient) Name() string { return "LOGIN" }

func (*loginClient) Start() ([]byte, error) { return nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	if len(l.answers) == 0 {
		return nil, errUnexpectedChallenge
	}
	answer := l.answers[0]
	l.answers = l.answers[1:]
	return []byte(answer), nil
}

func (*loginClient) Finish() error { return nil }

// cramClient is CRAM-MD5 (RFC 2195).
type cramClient struct{ user, password string }

func (*cramClient) Name() string { return "CRAM-MD5" }

func (*cramClient) Start() ([]byte, error) { return nil, nil }

func (m *cramClient) Next(challenge []byte) ([]byte, error) {
	if len(challenge) == 0 || m.password == "" {
		return nil, errUnexpectedChallenge
	}
	mac := hmac.New(md5.New, []byte(m.password))
	mac.Write(challenge)
	return []byte(m.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}

func (*cramClient) Finish() error { return nil }
