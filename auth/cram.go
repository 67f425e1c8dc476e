package auth

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"net/netip"
)

// ErrNoCramKeys: the login has no keys for CRAM-MD5.
var ErrNoCramKeys = errors.New("the login has no keys for CRAM-MD5: that is for devices with a generated password, " +
	"which get them when that is set, or at their next login by PLAIN. Others choose PLAIN or LOGIN")

// CramKeys are what a server keeps of a password for CRAM-MD5 (RFC 2195): the states of MD5 after the first block of
// HMAC's outer and inner hash, in the octets of Dovecot. Who has them can log in with them.
type CramKeys struct{ outer, inner [md5.Size]byte }

// IsZero reports that there are none.
func (k CramKeys) IsZero() bool { return k == CramKeys{} }

// DeriveCram makes the keys of a generated password as it was shown: in lower case, and without hyphens.
func DeriveCram(password string) CramKeys {
	key := []byte(canonicalGenerated(password))
	if len(key) > md5.BlockSize { // RFC 2104 §2
		sum := md5.Sum(key)
		key = sum[:]
	}
	return CramKeys{cramState(key, 0x5c), cramState(key, 0x36)}
}

// cramState is the state of MD5 after one block: the key and a pad.
func cramState(key []byte, pad byte) (state [md5.Size]byte) {
	block := bytes.Repeat([]byte{pad}, md5.BlockSize)
	subtle.XORBytes(block, block, key)
	turnWords(state[:], saveMD5(block)[md5Words:])
	return state
}

// md5Words is where the four words of the state stand in what MD5 saves of itself, behind a mark.
const md5Words = 4

// saveMD5 is what MD5 saves of itself after one block.
func saveMD5(block []byte) []byte {
	h := md5.New()
	h.Write(block)
	saved, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // it has no error to give
	}
	return saved
}

// resumeMD5 goes on after the block that led to a state.
func resumeMD5(state [md5.Size]byte) hash.Hash {
	saved := saveMD5(make([]byte, md5.BlockSize))
	turnWords(saved[md5Words:], state[:])
	h := md5.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(saved); err != nil {
		panic(err) // it has saved that itself
	}
	return h
}

// turnWords copies four words from the order of octets that MD5 saves to that of MD5 and Dovecot, or back.
func turnWords(to, from []byte) {
	for i := 0; i < md5.Size; i += 4 {
		binary.LittleEndian.PutUint32(to[i:], binary.BigEndian.Uint32(from[i:]))
	}
}

// answer is what proves the password after a challenge.
func (k CramKeys) answer(challenge []byte) (digest [md5.Size]byte) {
	inner, outer := resumeMD5(k.inner), resumeMD5(k.outer)
	inner.Write(challenge)
	outer.Write(inner.Sum(nil))
	return [md5.Size]byte(outer.Sum(nil))
}

// Encode returns the keys as Dovecot writes them behind {CRAM-MD5}.
func (k CramKeys) Encode() Secret {
	return Secret(hex.EncodeToString(append(k.outer[:], k.inner[:]...)))
}

// DecodeCram reads what Encode wrote.
func DecodeCram(text Secret) (k CramKeys, err error) {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(k.outer)+len(k.inner) {
		return CramKeys{}, errors.New("the keys of CRAM-MD5 are damaged: 64 hexadecimal digits are needed")
	}
	copy(k.outer[:], b)
	copy(k.inner[:], b[len(k.outer):])
	return k, nil
}

// CramAnswer is a challenge and the digest that a client has answered it with.
type CramAnswer struct {
	Challenge []byte
	Digest    [md5.Size]byte
}

// Cram returns who has a login whose device has answered a challenge, which must be a fresh one. Sources are asked as
// by Scram. A wrong answer counts as a wrong password does, if the login has keys. Its errors are *mail.Error.
func (a *Authenticator) Cram(ctx context.Context, login string, answer CramAnswer, client netip.Addr) (Identity,
	error) {
	t, err := a.begin(ctx, login, client, true)
	if err != nil {
		return Identity{}, err
	}
	want := t.entry.Cram.answer(answer.Challenge) // with no keys it is as much work
	right := subtle.ConstantTimeCompare(want[:], answer.Digest[:]) == 1
	return t.Finish(ctx, right, string(answer.Digest[:]))
}
