package smtp

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

// Unread: PLAIN has no challenge but the one that asks for its response.
func (*plainClient) Unread([]byte) bool { return true }

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
