package smtp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/xdg-go/scram"
)

// Iterations that we accept: RFC 7677 §4 wants 4096 at least; the upper bound keeps a hostile server from burning our
// time.
const (
	scramMinIterations = 4096
	scramMaxIterations = 600_000
)

var (
	errScramSyntax     = errors.New("malformed SCRAM message")
	errScramNonce      = errors.New("SCRAM nonce is not ours")
	errScramIterations = errors.New("SCRAM iteration count out of bounds")
	errScramSignature  = errors.New("SCRAM server signature is wrong or missing")
	errScramRefused    = errors.New("SCRAM server reports an error")
)

// scramFits reports whether the credentials are printable ASCII. SASLprep (RFC 4013) changes others, and not every
// server does it, so those log in with PLAIN.
func scramFits(user, password string) bool {
	for _, s := range []string{user, password} {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return false
		}
	}
	return true
}

// scramKeys holds the client whose derived keys later logins reuse (RFC 5802 §5.1).
type scramKeys struct {
	mu     sync.Mutex
	client *scram.Client
	salt   string // that the keys are derived with, and the iteration count
}

// begin starts one exchange.
func (k *scramKeys) begin(user, password string) *scramClient {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil {
		k.client, _ = scram.SHA256.NewClientUnprepped(user, password, "") // never fails
	}
	return &scramClient{talk: k.client.NewConversation(), keys: k}
}

// scramClient is SCRAM-SHA-256 without channel binding (RFC 5802, RFC 7677).
type scramClient struct {
	talk  *scram.ClientConversation
	keys  *scramKeys
	nonce string // ours
}

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.talk.Step("")
	_, s.nonce, _ = strings.Cut(first, ",r=") // a comma in the user name is escaped
	return "SCRAM-SHA-256", []byte(first), err
}

// Unread: server-first-message begins with the nonce, or there is an error.
func (*scramClient) Unread(challenge []byte) bool {
	return !bytes.HasPrefix(challenge, []byte("r=")) && !bytes.HasPrefix(challenge, []byte("e=")) &&
		!bytes.HasPrefix(challenge, []byte("m="))
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	if s.talk.Done() {
		return nil, errUnexpectedChallenge
	}
	if s.nonce != "" {
		return s.final(string(challenge))
	}
	if _, err := s.talk.Step(string(challenge)); err != nil {
		if bytes.HasPrefix(challenge, []byte("e=")) {
			return nil, errScramRefused
		}
		return nil, errScramSignature
	}
	return []byte{}, nil
}

// final answers server-first-message with client-final-message. One exchange at a time derives keys. The library keeps
// keys for every salt that it meets, without bound: another salt makes room.
func (s *scramClient) final(first string) ([]byte, error) {
	salt, err := checkServerFirst(first, s.nonce)
	if err != nil {
		return nil, err
	}
	s.nonce = ""
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	response, err := s.talk.Step(first)
	if err != nil {
		return nil, errScramSyntax
	}
	if s.keys.salt != "" && s.keys.salt != salt {
		s.keys.client = nil
	}
	s.keys.salt = salt
	return []byte(response), nil
}

func (s *scramClient) Finish() error {
	if !s.talk.Valid() {
		return errScramSignature
	}
	return nil
}

// checkServerFirst refuses what the library takes: many iterations, no salt, and a nonce that the server added nothing
// to. The message is "r=nonce,s=salt,i=count" and whatever extensions follow; a mandatory one comes first (RFC 5802
// §5.1).
func checkServerFirst(first, nonce string) (salt string, err error) {
	f := strings.Split(first, ",")
	if len(f) < 3 || !strings.HasPrefix(f[0], "r=") || !strings.HasPrefix(f[1], "s=") ||
		!strings.HasPrefix(f[2], "i=") {
		return "", errScramSyntax
	}
	if raw, err := base64.StdEncoding.DecodeString(f[1][2:]); err != nil || len(raw) == 0 {
		return "", errScramSyntax
	}
	iterations, err := strconv.Atoi(f[2][2:])
	switch {
	case err != nil:
		return "", errScramSyntax
	case iterations < scramMinIterations || iterations > scramMaxIterations:
		return "", errScramIterations
	case len(f[0]) <= len("r=")+len(nonce) || !strings.HasPrefix(f[0][2:], nonce):
		return "", errScramNonce
	}
	return f[1] + "," + f[2], nil
}
