package passwdfile

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"

	"github.com/go-crypt/x/crypt"
	"golang.org/x/crypto/bcrypt"

	"postern/auth"
	"postern/mail"
)

// Bounds of what a hash may ask of us: each step of bcrypt doubles its work, 14 being about a second.
const (
	maxBcryptCost = 14
	maxSHARounds  = 1_000_000
)

// maxSHASalt is where crypt(3) cuts a salt of SHA-crypt, in octets.
const maxSHASalt = 16

const howTo = "make one with htpasswd -B, or doveadm pw -s ARGON2ID"

// schemes are Dovecot's names of the hashes that are read, and what those begin with.
var schemes = map[string][]string{
	"ARGON2ID":     {"$argon2id$"},
	"BLF-CRYPT":    {"$2y$", "$2b$", "$2a$"},
	"SHA512-CRYPT": {"$6$"},
	"SHA256-CRYPT": {"$5$"},
	"CRYPT":        {"$2y$", "$2b$", "$2a$", "$6$", "$5$", "$argon2id$"},
}

// weak are schemes whose hashes are guessed fast, or need no guessing.
var weak = []string{"PLAIN", "PLAINTEXT", "CLEARTEXT", "CLEAR", "PLAIN-MD5", "PLAIN-TRUNC", "LDAP-MD5", "SMD5", "SHA",
	"SHA1", "SSHA", "SHA256", "SSHA256", "SHA512", "SSHA512", "MD5", "MD5-CRYPT", "CRAM-MD5", "DIGEST-MD5", "HMAC-MD5",
	"NTLM", "LANMAN", "LM", "DES-CRYPT", "OTP", "SKEY", "RPA"}

// scramScheme is in front of SCRAM keys: doveadm pw -s SCRAM-SHA-256.
const scramScheme = "{SCRAM-SHA-256}"

func scramHash(field string) (auth.Secret, func(string) bool, error) {
	keys, err := auth.DecodeScram(auth.Secret(field))
	if err != nil {
		return "", nil, fmt.Errorf("%w; make others with doveadm pw -s SCRAM-SHA-256", err)
	}
	return auth.Secret(scramScheme + field), keys.Matches, nil
}

// parseHash reads a hash with or without the {SCHEME} of Dovecot, and returns it without. No error contains it.
func parseHash(field string) (auth.Secret, func(string) bool, error) {
	if len(field) >= len(scramScheme) && strings.EqualFold(field[:len(scramScheme)], scramScheme) {
		return scramHash(field[len(scramScheme):])
	}
	if name, rest, ok := strings.Cut(field, "}"); ok && strings.HasPrefix(name, "{") {
		scheme := strings.ToUpper(name[1:])
		begins, known := schemes[scheme]
		switch {
		case slices.Contains(weak, scheme):
			return "", nil, fmt.Errorf("{%s} does not protect a password, %s", scheme, howTo)
		case !known:
			return "", nil, fmt.Errorf("the scheme {%s} is unknown, %s", mail.Printable(mail.Cut(scheme, 32)), howTo)
		case !slices.ContainsFunc(begins, func(b string) bool { return strings.HasPrefix(rest, b) }):
			return "", nil, fmt.Errorf("what follows {%s} is no such hash, %s", scheme, howTo)
		}
		field = rest
	}
	switch {
	case field == "":
		return "", nil, errors.New("it has no password, which would let everybody in; " + howTo)
	case strings.HasPrefix(field, "$argon2id$"):
		return argon2idHash(field)
	case strings.HasPrefix(field, "$2"):
		return bcryptHash(field)
	case strings.HasPrefix(field, "$6$"):
		return shaHash(field, sha512.New, 86)
	case strings.HasPrefix(field, "$5$"):
		return shaHash(field, sha256.New, 43)
	case strings.HasPrefix(field, "$apr1$"), strings.HasPrefix(field, "$1$"):
		return "", nil, errors.New("an MD5 hash does not protect a password, " + howTo)
	}
	return "", nil, errors.New("what follows the colon is no hash that is known, " + howTo)
}

func argon2idHash(field string) (auth.Secret, func(string) bool, error) {
	h := auth.Secret(field)
	if auth.CheckArgon2id(h) != nil {
		return "", nil, errors.New("the argon2id hash is damaged, or asks for more than 1 GiB or 64 passes, " + howTo)
	}
	return h, func(password string) bool {
		ok, err := auth.VerifyArgon2id(h, password)
		return ok && err == nil
	}, nil
}

func bcryptHash(field string) (auth.Secret, func(string) bool, error) {
	cost, err := bcrypt.Cost([]byte(field))
	switch {
	case err != nil || len(field) != 60:
		return "", nil, errors.New("the bcrypt hash is damaged, " + howTo)
	case cost > maxBcryptCost:
		return "", nil, fmt.Errorf("the bcrypt hash has cost %d, which takes seconds for each login; make one of at "+
			"most %d: htpasswd -B -C 12", cost, maxBcryptCost)
	}
	hash := []byte(field)
	return auth.Secret(field), func(password string) bool {
		return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	}, nil
}

// shaHash reads $5$ and $6$ of crypt(3): $6$[rounds=N$]salt$sum, the sum having so many characters.
func shaHash(field string, kind func() hash.Hash, length int) (auth.Secret, func(string) bool, error) {
	parts := strings.Split(field[3:], "$")
	rounds := 5000
	if n, ok := strings.CutPrefix(parts[0], "rounds="); ok {
		var err error
		if rounds, err = strconv.Atoi(n); err != nil || rounds < 1000 || rounds > maxSHARounds {
			return "", nil, fmt.Errorf("the SHA-crypt hash has rounds beyond 1000 to %d, %s", maxSHARounds, howTo)
		}
		parts = parts[1:]
	}
	if len(parts) != 2 || parts[0] == "" || len(parts[1]) != length {
		return "", nil, errors.New("the SHA-crypt hash is damaged, " + howTo)
	}
	salt, sum := []byte(parts[0]), []byte(parts[1])
	salt = salt[:min(len(salt), maxSHASalt)]
	return auth.Secret(field), func(password string) bool {
		made := crypt.KeySHACrypt(kind, []byte(password), salt, rounds) // in the letters of crypt(3)
		return subtle.ConstantTimeCompare(made, sum) == 1
	}, nil
}
