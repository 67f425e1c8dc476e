// Package sign makes DKIM signatures (RFC 6376, RFC 8463) and manages their keys: which key signs for which header
// author, which fields are covered, what to publish in DNS.
//
// Failure semantics: it makes a signature or returns an error; it never signs part of a message, and a message that
// must be signed is never sent unsigned. An error here is temporary for the message (the attempt defers). Keys are
// checked when they are loaded: one that cannot sign is refused at start.
package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"postern/mail"
)

// oversigned fields are listed once more than they occur, so that none can be added to a signed message (RFC 6376
// §8.15): those that readers show or trust, and those that decide how the body is read.
var oversigned = []string{
	"From", "To", "Cc", "Subject", "Date", "Reply-To", "Sender", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
}

// signed fields are listed as often as they occur. They must not include fields that change on the way (Received,
// Return-Path), that nobody may see (Bcc), or other signatures.
var signed = []string{
	"List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "List-Help", "List-Subscribe", "List-Post", "List-Owner",
	"List-Archive", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Date", "Resent-Message-ID",
	"Autocrypt", "Feedback-ID",
}

// Options says how to sign.
type Options struct {
	// Expire is the life of a signature, x= (RFC 6376 §3.5); 0: unlimited. A few days limit replay. It must exceed the
	// time in our queue and the next server's, or honest mail would fail.
	Expire time.Duration
	// Unsigned names fields to omit because the upstream rewrites them. From is never omitted.
	Unsigned []string
}

// Digest is what all signatures of one message share: the canonical header fields and the hash of the body. It takes
// one pass over the message and is immutable.
type Digest struct {
	names  []string // of h=, in order
	fields []byte   // canonical, in the order of names
	body   [sha256.Size]byte
	expire time.Duration
}

// Sign returns the DKIM-Signature fields of a message, one for each key, to be put on top of it.
func Sign(c mail.Content, keys []Key, now time.Time, o Options) ([]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	d, err := Hash(c, o)
	if err != nil {
		return nil, err
	}
	return d.Sign(keys, now)
}

// Sign returns the DKIM-Signature fields, one for each key.
func (d *Digest) Sign(keys []Key, now time.Time) ([]byte, error) {
	var all []byte
	for _, k := range keys {
		field, err := d.signature(k, now)
		if err != nil {
			return nil, fmt.Errorf("sign as %s: %w", k.RecordName(), err)
		}
		all = append(all, field...)
	}
	return all, nil
}

func (d *Digest) signature(k Key, now time.Time) ([]byte, error) {
	algorithm, hash, err := k.algorithm()
	if err != nil {
		return nil, err
	}
	f := d.fieldOf(k, algorithm, now)
	h := sha256.New()
	h.Write(d.fields)
	// RFC 6376 §3.7: the field itself comes last, its b= empty, without its CRLF.
	h.Write(appendRelaxed(nil, "dkim-signature", f.b[len(signatureName)+1:]))
	sum := h.Sum(nil)
	// For Ed25519 the hash is the message (RFC 8463 §3), hence crypto.Hash(0).
	signature, err := k.Signer.Sign(rand.Reader, sum, hash)
	if err != nil {
		return nil, err
	}
	f.fold(base64.StdEncoding.EncodeToString(signature), 1)
	return append(f.b, '\r', '\n'), nil
}

const signatureName = "DKIM-Signature"

// fieldOf writes the field with an empty b=. It omits i=, which would be "@" and the domain.
func (d *Digest) fieldOf(k Key, algorithm string, now time.Time) folder {
	f := folder{b: make([]byte, 0, 1536)}
	f.word(signatureName + ":")
	f.word("v=1;")
	f.word("a=" + algorithm + ";")
	f.word("c=relaxed/relaxed;")
	f.word("d=" + k.Domain + ";")
	f.word("s=" + k.Selector + ";")
	f.word("t=" + strconv.FormatInt(now.Unix(), 10) + ";")
	if d.expire > 0 {
		f.word("x=" + strconv.FormatInt(now.Add(d.expire).Unix(), 10) + ";")
	}
	f.line("h=")
	for i, name := range d.names {
		if i < len(d.names)-1 {
			f.fold(name+":", 1+len(name))
		} else {
			f.fold(name+";", 1+len(name))
		}
	}
	f.line("bh=" + base64.StdEncoding.EncodeToString(d.body[:]) + ";")
	f.line("b=")
	return f
}

// folder writes a field with lines of at most 78 octets if possible.
type folder struct {
	b     []byte
	width int
}

const foldWidth = 78

// word appends a blank and s, or s on a new line if it does not fit.
func (f *folder) word(s string) {
	switch {
	case f.width == 0:
	case f.width+1+len(s) > foldWidth:
		f.line(s)
		return
	default:
		f.b, f.width = append(f.b, ' '), f.width+1
	}
	f.b, f.width = append(f.b, s...), f.width+len(s)
}

// line appends s on a new line.
func (f *folder) line(s string) {
	f.b, f.width = append(append(f.b, "\r\n\t"...), s...), 1+len(s)
}

// fold appends s without a blank, split across lines into pieces of at least n octets.
func (f *folder) fold(s string, n int) {
	for s != "" {
		if room := foldWidth - f.width; room < n {
			f.line("")
		}
		cut := min(max(foldWidth-f.width, n), len(s))
		f.b, f.width = append(f.b, s[:cut]...), f.width+cut
		s = s[cut:]
	}
}

// algorithm returns the value of a= and the hash for the signer.
func (k Key) algorithm() (string, crypto.Hash, error) {
	switch public := k.Signer.Public().(type) {
	case *rsa.PublicKey:
		return "rsa-sha256", crypto.SHA256, nil
	case ed25519.PublicKey:
		return "ed25519-sha256", crypto.Hash(0), nil
	default:
		return "", 0, fmt.Errorf("keys of type %T cannot sign with DKIM", public)
	}
}

var errAuthor = errors.New("a message is signed only with exactly one From field")
