package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

const (
	// ScramIterations of PBKDF2 are what OWASP's password storage cheat sheet has for HMAC-SHA-256: a client works for
	// about 0.2 s, once for each password and salt. Every login has the same number, or it would tell who exists.
	ScramIterations = 600_000
	// Iterations that keys from elsewhere may have: RFC 7677 §4 wants 4096 at least, and a client stops at some point.
	minScramIterations = 4096
	maxScramIterations = 5_000_000

	scramSaltLength = 16
	maxScramSalt    = 64 // octets
)

// ScramSaltName and ScramSaltSize (octets) are the install secret that salts are made of.
const (
	ScramSaltName = "scram-salt"
	ScramSaltSize = 32
)

// ScramKeys are what a server keeps of a password for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677). StoredKey lets a thief try
// passwords, and ServerKey play the server.
type ScramKeys struct {
	Salt                 []byte
	Iterations           int
	StoredKey, ServerKey []byte
}

// IsZero reports that there are none.
func (k ScramKeys) IsZero() bool { return len(k.StoredKey) == 0 }

// Equal compares the keys.
func (k ScramKeys) Equal(o ScramKeys) bool {
	return k.Iterations == o.Iterations && string(k.Salt) == string(o.Salt) &&
		subtle.ConstantTimeCompare(k.StoredKey, o.StoredKey) == 1
}

func (k ScramKeys) credentials() scram.StoredCredentials {
	return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations},
		StoredKey: k.StoredKey, ServerKey: k.ServerKey}
}

// scramSalt is the salt of a login, the same before it exists, with each of its passwords, and after it is gone:
// whoever asks learns nothing from it. secret is the install secret ScramSaltName.
func scramSalt(secret []byte, login string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("postern scram salt\x00"))
	mac.Write([]byte(login))
	return mac.Sum(nil)[:scramSaltLength]
}

// DeriveScram makes the keys of a password, which takes about 0.2 s of a core. It cannot for passwords that SASLprep
// (RFC 4013), which SCRAM prescribes, does not allow. secret is the install secret ScramSaltName.
func DeriveScram(secret []byte, login, password string) (ScramKeys, error) {
	return deriveScram(scramSalt(secret, login), ScramIterations, password)
}

func deriveScram(salt []byte, iterations int, password string) (ScramKeys, error) {
	c, err := scram.SHA256.NewClient("login", Prepare(password), "")
	if err != nil {
		return ScramKeys{}, errors.New("the password has letters that SCRAM does not allow (RFC 4013)")
	}
	stored, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	return ScramKeys{salt, iterations, stored.StoredKey, stored.ServerKey}, err
}

// Matches reports whether keys are those of a password, at the cost of deriving it.
func (k ScramKeys) Matches(password string) bool {
	d, err := deriveScram(k.Salt, k.Iterations, password)
	return err == nil && k.Equal(d)
}

// Encode returns the keys as Dovecot writes them behind {SCRAM-SHA-256}.
func (k ScramKeys) Encode() Secret {
	e := base64.StdEncoding.EncodeToString
	return Secret(fmt.Sprintf("%d,%s,%s,%s", k.Iterations, e(k.Salt), e(k.StoredKey), e(k.ServerKey)))
}

var errScramKeys = errors.New("the SCRAM keys are damaged: iterations,salt,StoredKey,ServerKey are needed, the last " +
	"three in base64")

// DecodeScram reads what Encode wrote.
func DecodeScram(text Secret) (k ScramKeys, err error) {
	parts := strings.Split(string(text), ",")
	if len(parts) != 4 {
		return k, errScramKeys
	}
	if k.Iterations, err = strconv.Atoi(parts[0]); err != nil {
		return k, errScramKeys
	}
	if k.Iterations < minScramIterations || k.Iterations > maxScramIterations {
		return ScramKeys{}, fmt.Errorf("the SCRAM keys have %d iterations, which must be from %d to %d", k.Iterations,
			minScramIterations, maxScramIterations)
	}
	for i, to := range []*[]byte{&k.Salt, &k.StoredKey, &k.ServerKey} {
		if *to, err = base64.StdEncoding.Strict().DecodeString(parts[1+i]); err != nil {
			return ScramKeys{}, errScramKeys
		}
	}
	if len(k.Salt) == 0 || len(k.Salt) > maxScramSalt || len(k.StoredKey) != sha256.Size ||
		len(k.ServerKey) != sha256.Size {
		return ScramKeys{}, errScramKeys
	}
	return k, nil
}

// ScramShape is what a client sees of keys before it has proved anything.
type ScramShape struct{ Iterations, Salt int } // Salt in octets

// fakeScram returns keys for a login that has none. They are those of no password, look the same each time, and like
// those of the logins that have some.
func fakeScram(secret []byte, login string, shapes []ScramShape) ScramKeys {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("postern scram shape\x00" + login))
	draw := mac.Sum(nil)
	shape := ScramShape{ScramIterations, scramSaltLength}
	if len(shapes) > 0 {
		shape = shapes[int(draw[0])%len(shapes)]
	}
	salt := scramSalt(secret, login)
	for len(salt) < shape.Salt {
		mac.Write(salt)
		salt = mac.Sum(salt)
	}
	mac.Write([]byte("keys"))
	key := mac.Sum(nil)
	return ScramKeys{salt[:shape.Salt], shape.Iterations, key, key}
}
