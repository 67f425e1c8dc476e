package smtp

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"postern/mail"
)

// DefaultMechanisms in order of preference: what does not show the password first, then what every provider has.
// CRAM-MD5 is last because it says nothing about the server and asks it to keep passwords readable.
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

// mechanism makes the client for one exchange, nil for a name that is not ours or does not fit the credentials. PLAIN
// is go-sasl's. Its LOGIN takes no prompt but "Password:" to the letter; its OAUTHBEARER does not escape the user name
// and leaves an error challenge unanswered, so that the server's verdict is never heard; the others it does not have.
func (u *Upstream) mechanism(name string) sasl.Client {
	user, password := u.cfg.Username, u.cfg.Password
	switch name {
	case sasl.Plain:
		return sasl.NewPlainClient("", user, password)
	case sasl.Login:
		return &loginClient{answers: []string{user, password}}
	case "CRAM-MD5":
		return &cramClient{user, password}
	case "SCRAM-SHA-256":
		if scramFits(user, password) {
			return u.scram.begin(user, password)
		}
	}
	return nil
}

// Beside sasl.Client a mechanism may have one of these. A nil initial response means that AUTH is sent alone and the
// first challenge waited for (LOGIN, and tokens too long for a command line).
type (
	// prover is asked at 235: an error means that the server has not proved what it must.
	prover interface{ Finish() error }
	// unreader says whether a challenge shows that the server did not read the initial response.
	unreader interface{ Unread(challenge []byte) bool }
	// explainer says what a server said of a token that it refused.
	explainer interface{ challenged() error }
)

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

// loginClient is LOGIN (draft-murchison-sasl-login): user and password in turn, whatever the prompts say.
type loginClient struct{ answers []string }

func (*loginClient) Start() (string, []byte, error) { return sasl.Login, nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	if len(l.answers) == 0 {
		return nil, errUnexpectedChallenge
	}
	answer := l.answers[0]
	l.answers = l.answers[1:]
	return []byte(answer), nil
}

// cramClient is CRAM-MD5 (RFC 2195).
type cramClient struct{ user, password string }

func (*cramClient) Start() (string, []byte, error) { return "CRAM-MD5", nil, nil }

func (m *cramClient) Next(challenge []byte) ([]byte, error) {
	if len(challenge) == 0 || m.password == "" {
		return nil, errUnexpectedChallenge
	}
	mac := hmac.New(md5.New, []byte(m.password))
	mac.Write(challenge)
	return []byte(m.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}
