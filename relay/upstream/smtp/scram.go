package smtp

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"sync"
)

// Iterations that we accept: RFC 7677 §4 wants 4096 at least; the upper bound keeps a hostile server from burning our time.
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

// scramFits reports whether the credentials are the same before and after SASLprep (RFC 4013), which we do not do: printable
// ASCII. Others log in with PLAIN.
func scramFits(user, password string) bool {
	for _, s := range []string{user, password} {
		if s == "" {
			return false
		}
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' {
				return false
			}
		}
	}
	return true
}

func scramNonce() string {
	var b [18]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:]) // no comma in this alphabet
}

// scram is SCRAM-SHA-256 without channel binding (RFC 5802, RFC 7677).
type scram struct {
	user, password, nonce string
	cache                 *saltedCache

	step      int
	bare      string // client-first-message-bare
	signature []byte // expected of the server
	verified  bool
}

func newScram(user, password, nonce string, cache *saltedCache) *scram {
	return &scram{user: user, password: password, nonce: nonce, cache: cache}
}

func (*scram) Name() string { return "SCRAM-SHA-256" }

func (s *scram) Start() ([]byte, error) {
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
	s.bare = "n=" + name + ",r=" + s.nonce
	return []byte("n,," + s.bare), nil
}

// Unread: server-first-message begins with the nonce, or there is an error.
func (*scram) Unread(challenge []byte) bool {
	return !bytes.HasPrefix(challenge, []byte("r=")) && !bytes.HasPrefix(challenge, []byte("e=")) && !bytes.HasPrefix(challenge, []byte("m="))
}

func (s *scram) Next(challenge []byte) ([]byte, error) {
	s.step++
	switch s.step {
	case 1:
		return s.final(string(challenge))
	case 2:
		return []byte{}, s.verify(string(challenge))
	}
	return nil, errUnexpectedChallenge
}

// final answers server-first-message with client-final-message.
func (s *scram) final(first string) ([]byte, error) {
	nonce, salt, iterations, err := parseServerFirst(first)
	if err != nil {
		return nil, err
	}
	if len(nonce) <= len(s.nonce) || !strings.HasPrefix(nonce, s.nonce) {
		return nil, errScramNonce
	}
	salted, err := s.cache.derive(s.password, salt, iterations)
	if err != nil {
		return nil, err
	}
	without := "c=biws,r=" + nonce // biws is base64 of "n,,"
	message := s.bare + "," + first + "," + without
	clientKey := sign(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	proof := sign(stored[:], message)
	subtle.XORBytes(proof, proof, clientKey)
	s.signature = sign(sign(salted, "Server Key"), message)
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// verify checks server-final-message.
func (s *scram) verify(final string) error {
	if strings.HasPrefix(final, "e=") {
		return errScramRefused
	}
	value, ok := strings.CutPrefix(final, "v=")
	if !ok {
		return errScramSyntax
	}
	value, _, _ = strings.Cut(value, ",")
	got, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return errScramSyntax
	}
	if s.signature == nil || !hmac.Equal(got, s.signature) {
		return errScramSignature
	}
	s.verified = true
	return nil
}

func (s *scram) Finish() error {
	if !s.verified {
		return errScramSignature
	}
	return nil
}

// parseServerFirst reads "r=nonce,s=salt,i=count" and whatever extensions follow. A mandatory extension that comes first is
// one that we do not know (RFC 5802 §5.1).
func parseServerFirst(s string) (nonce string, salt []byte, iterations int, err error) {
	f := strings.Split(s, ",")
	if len(f) < 3 || !strings.HasPrefix(f[0], "r=") || !strings.HasPrefix(f[1], "s=") || !strings.HasPrefix(f[2], "i=") {
		return "", nil, 0, errScramSyntax
	}
	if salt, err = base64.StdEncoding.DecodeString(f[1][2:]); err != nil || len(salt) == 0 {
		return "", nil, 0, errScramSyntax
	}
	if iterations, err = strconv.Atoi(f[2][2:]); err != nil {
		return "", nil, 0, errScramSyntax
	}
	if iterations < scramMinIterations || iterations > scramMaxIterations {
		return "", nil, 0, errScramIterations
	}
	return f[0][2:], salt, iterations, nil
}

func sign(key []byte, message string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(message))
	return mac.Sum(nil)
}

// saltedCache keeps the last derived key, so that only the first login of an upstream pays for the iterations
// (RFC 5802 §5.1 foresees it).
type saltedCache struct {
	mu         sync.Mutex
	salt       string
	iterations int
	key        []byte
}

func (c *saltedCache) derive(password string, salt []byte, iterations int) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key != nil && c.salt == string(salt) && c.iterations == iterations {
		return c.key, nil
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	c.salt, c.iterations, c.key = string(salt), iterations, key
	return key, nil
}
