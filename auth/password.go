package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"

	"postern/mail"
)

// params are the cost of argon2id. They travel in each hash, so that they can change.
type params struct {
	memory  uint32 // KiB
	time    uint32 // passes
	threads uint8
}

// chosen is the cost for new hashes: the first choice of the OWASP password storage cheat sheet,
// about 18 ms of one core.
var chosen = params{memory: 19 * 1024, time: 2, threads: 1}

const (
	saltLength = 16
	hashLength = 32
	// The most that a stored hash may ask of us: a damaged store must not take the machine down.
	maxMemory, maxTime = 1 << 20, 64
)

const (
	chosenPrefix    = "$argon2id$v=19$"
	generatedPrefix = "$postern-hmac-sha256$"
)

var errHash = errors.New("stored password hash is damaged or of an unknown kind")

var b64 = base64.RawStdEncoding.Strict()

// argon computes argon2id; tests replace it to count.
type argon func(password, salt []byte, p params) []byte

func realArgon(password, salt []byte, p params) []byte {
	return argon2.IDKey(password, salt, p.time, p.memory, p.threads, hashLength)
}

// Prepare brings a password to the form in which it is hashed and compared (PRECIS OpaqueString, RFC 8265 §4.2):
// keyboards and systems write the same letters and blanks in more than one way. What the profile does not allow stays
// as it is.
func Prepare(password string) string {
	if isASCII(password) || !utf8.ValidString(password) {
		return password
	}
	if prepared, err := precis.OpaqueString.String(password); err == nil {
		return prepared
	}
	return password
}

// HashChosen hashes a password that a person chose: argon2id as a PHC string. It refuses what
// CheckPassword refuses.
func HashChosen(password string) (Secret, error) {
	password = Prepare(password)
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	salt := make([]byte, saltLength)
	rand.Read(salt) // never fails
	return encodeChosen(chosen, salt, realArgon([]byte(password), salt, chosen)), nil
}

func encodeChosen(p params, salt, sum []byte) Secret {
	return Secret(fmt.Sprintf("%sm=%d,t=%d,p=%d$%s$%s", chosenPrefix, p.memory, p.time, p.threads,
		b64.EncodeToString(salt), b64.EncodeToString(sum)))
}

func decodeChosen(hash Secret) (p params, salt, sum []byte, err error) {
	rest, ok := strings.CutPrefix(string(hash), chosenPrefix)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 3 {
		return p, nil, nil, errHash
	}
	if _, err := fmt.Sscanf(parts[0], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return p, nil, nil, errHash
	}
	if p.memory < 8 || p.memory > maxMemory || p.time < 1 || p.time > maxTime || p.threads < 1 {
		return p, nil, nil, errHash
	}
	salt, err1 := b64.DecodeString(parts[1])
	sum, err2 := b64.DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(sum) != hashLength {
		return p, nil, nil, errHash
	}
	return p, salt, sum, nil
}

// HashGenerated hashes a password of GeneratePassword or GenerateDevicePassword: HMAC-SHA-256 with a pepper that only
// this installation has. Some 100 bits of entropy need no slow hash (NIST SP 800-63B-4 §3.1.2.2): who has store and
// pepper and tries 10^12 a second is at it for 10^10 years.
func HashGenerated(pepper []byte, password string) Secret {
	return Secret(generatedPrefix + b64.EncodeToString(generatedSum(pepper, password)))
}

func generatedSum(pepper []byte, password string) []byte {
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte("postern generated password\x00"))
	mac.Write([]byte(canonicalGenerated(password)))
	return mac.Sum(nil)
}

// canonicalGenerated undoes what happens to a password that is typed on a printer's panel: capitals,
// and hyphens left out or replaced by blanks. None of them carries entropy.
func canonicalGenerated(password string) string {
	return mail.LowerASCII(hyphens.Replace(password))
}

var hyphens = strings.NewReplacer("-", "", " ", "")

// IsGenerated reports whether hash is one of HashGenerated.
func IsGenerated(hash Secret) bool { return strings.HasPrefix(string(hash), generatedPrefix) }

func verifyGenerated(hash Secret, pepper []byte, password string) (bool, error) {
	want, err := b64.DecodeString(strings.TrimPrefix(string(hash), generatedPrefix))
	if err != nil || len(want) != sha256.Size {
		return false, errHash
	}
	return subtle.ConstantTimeCompare(want, generatedSum(pepper, password)) == 1, nil
}

func verifyChosen(work argon, hash Secret, password string) (bool, error) {
	p, salt, want, err := decodeChosen(hash)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(want, work([]byte(password), salt, p)) == 1, nil
}

// VerifyArgon2id compares a password with an argon2id hash in PHC form, of 32 octets. The error says that it is none,
// or asks for more than 1 GiB or 64 passes.
func VerifyArgon2id(hash Secret, password string) (bool, error) {
	return verifyChosen(realArgon, hash, password)
}

// CheckArgon2id returns the error of VerifyArgon2id without hashing.
func CheckArgon2id(hash Secret) error {
	_, _, _, err := decodeChosen(hash)
	return err
}

// dummy costs what verifying a chosen password costs, for logins that have none.
func dummy(work argon, password string) {
	work([]byte(password), make([]byte, saltLength), chosen)
}

// alphabet has no look-alikes: no i, l, o, 0, 1. It is lower case, since a device's keyboard begins so.
const alphabet = "abcdefghjkmnpqrstuvwxyz23456789"

// generatedLength characters of the alphabet are 128.8 bits.
const generatedLength = 26

// GeneratePassword returns a password with 128 bits of entropy that can be typed on a printer: 30
// characters, "k3m9p-…", within the 31 that many devices store, lower-case ASCII letters, digits and
// hyphens, which are only for the eye.
func GeneratePassword() string {
	var out []byte
	for n := 0; n < generatedLength; n++ {
		if n > 0 && n%5 == 0 && n < generatedLength-1 {
			out = append(out, '-')
		}
		out = append(out, randomLetter())
	}
	return string(out)
}

// DevicePasswordLength characters of the alphabet are 99.1 bits. Many devices keep no more than 20 characters of a
// password and cut the rest off without a word; 16, which a few old ones have, would be 79 bits.
const DevicePasswordLength = 20

// GenerateDevicePassword returns a password for a printer, scanner or other device: letters and digits only, since some
// panels have hyphens on another page and some configuration pages refuse them.
func GenerateDevicePassword() string {
	out := make([]byte, DevicePasswordLength)
	for i := range out {
		out[i] = randomLetter()
	}
	return string(out)
}

// randomLetter draws without bias: octets beyond the last multiple of the alphabet's length are thrown
// away.
func randomLetter() byte {
	const limit = 256 / len(alphabet) * len(alphabet)
	var b [1]byte
	for {
		rand.Read(b[:]) // never fails
		if int(b[0]) < limit {
			return alphabet[int(b[0])%len(alphabet)]
		}
	}
}
