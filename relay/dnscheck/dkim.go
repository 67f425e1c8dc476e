package dnscheck

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"postern/mail"
	"postern/relay/sign"
)

// keyRecord is a DKIM record as receivers read it (RFC 6376 §3.6.1).
type keyRecord struct {
	kind     string // k=, rsa unless it says otherwise
	key      []byte // p=
	revoked  bool   // p= is there, and empty
	testing  bool   // t=y
	noHash   bool   // h= without sha256
	notMail  bool   // s= without email and *
	bits     int    // of an RSA key
	stripped bool   // p= has characters that do not belong there, such as quotes
}

// parseKey reads a record. The error says what is wrong for people.
func parseKey(text string) (keyRecord, error) {
	var r keyRecord
	list, err := parseTags(text)
	if err != nil {
		return r, err
	}
	if v := list.get("v"); list.has("v") && (v != "DKIM1" || list[0].name != "v") {
		return r, fmt.Errorf("v=%s: it must begin with v=DKIM1", clean(v))
	}
	if !list.has("p") {
		return r, errors.New("there is no p= with the key")
	}
	r.kind = "rsa"
	if list.has("k") {
		r.kind = list.get("k")
	}
	r.testing = slices.Contains(list.list("t", ":"), "y")
	r.noHash = list.has("h") && !slices.Contains(list.list("h", ":"), "sha256")
	services := list.list("s", ":")
	r.notMail = list.has("s") && !slices.Contains(services, "*") && !slices.Contains(services, "email")
	p := strings.Join(strings.Fields(list.get("p")), "")
	if r.revoked = p == ""; r.revoked {
		return r, nil
	}
	bare := strings.NewReplacer(`"`, "", `\`, "", "'", "").Replace(p)
	r.stripped = bare != p
	if r.key, err = base64.StdEncoding.DecodeString(bare); err != nil {
		return r, errors.New("p= is not a whole key in base64")
	}
	if r.kind == "rsa" {
		err = r.readRSA()
	}
	return r, err
}

// readRSA checks an RSA key, and brings it into the form of sign.Key.Record.
func (r *keyRecord) readRSA() error {
	if len(r.key) > maxText {
		return errors.New("p= is too long for a key")
	}
	var key *rsa.PublicKey
	if public, err := x509.ParsePKIXPublicKey(r.key); err == nil {
		var ok bool
		if key, ok = public.(*rsa.PublicKey); !ok {
			return errors.New("p= is a key of another kind than k=rsa")
		}
	} else if key, err = x509.ParsePKCS1PublicKey(r.key); err != nil { // RFC 6376, erratum 3017
		return errors.New("p= is not a whole RSA key")
	}
	r.bits = key.N.BitLen()
	if der, err := x509.MarshalPKIXPublicKey(key); err == nil {
		r.key = der
	}
	return nil
}

// keyState is a key of ours with what became of it in DNS.
type keyState struct {
	Key
	ok      bool
	unknown bool   // it could not be looked up
	why     string // not ok
}

// dkimCheck judges our keys and the signatures that mail has.
type dkimCheck struct {
	o     *Options
	see   *sight
	tell  *notes
	dmarc *dmarcCheck
	keys  []keyState // ours
}

// check compares our keys with what is published.
func (c *dkimCheck) check() {
	for _, k := range c.o.Keys {
		c.keys = append(c.keys, c.checkKey(k))
	}
	signing := c.signingKeys()
	ours := slices.ContainsFunc(c.o.Senders, func(s Sender) bool { return s.Ours })
	if len(c.o.Senders) > 0 && len(signing) > 0 && !ours {
		c.tell.note("dkim-unused", "Postern has a DKIM key for %s, but no upstream lets it sign.", c.o.Domain)
	}
	rsaKey := func(k keyState) bool { return !strings.HasPrefix(k.Algorithm(), "ed25519") }
	if ours && len(signing) > 0 && !slices.ContainsFunc(signing, rsaKey) {
		c.tell.note("dkim-ed25519-only", "All DKIM keys of %s are Ed25519, which big receivers do not verify.",
			c.o.Domain)
	}
}

// signingKeys are those that sign mail of the domain: of the nearest domain that has any.
func (c *dkimCheck) signingKeys() []keyState {
	for domain := c.o.Domain; domain != ""; _, domain, _ = strings.Cut(domain, ".") {
		var list []keyState
		for _, k := range c.keys {
			if k.Signs && k.Domain == domain {
				list = append(list, k)
			}
		}
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

// checkKey looks at the record of one key.
func (c *dkimCheck) checkKey(k Key) keyState {
	state := keyState{Key: k}
	name := k.RecordName()
	expected, err := k.Record()
	if err != nil {
		state.why = clean(err.Error())
		return state
	}
	a, err := c.see.look(name, dns.TypeTXT)
	texts := a.Texts()
	bad := func(code, format string, args ...any) keyState {
		if k.Signs {
			c.tell.note(code, format, args...)
			c.tell.publish(Record{Name: name, Type: "TXT", Value: expected, Code: code})
		}
		if k.Waits {
			c.tell.publish(Record{Name: name, Type: "TXT", Value: expected, Code: "dkim-waiting"})
		}
		state.why = strings.TrimSuffix(fmt.Sprintf(format, args...), ".")
		return state
	}
	switch kind := kindOf(err); {
	case kind == Dangling:
		return bad("dkim-cname-dangling", "The DKIM record %s is a CNAME to %s, which does not exist.", name,
			joined(a.Chain))
	case kind != "" && kind != NXDomain:
		c.see.failed(name, err)
		state.unknown = true
		return state
	case len(texts) == 0:
		return c.missingKey(k, bad)
	case len(texts) > 1:
		return bad("dkim-several", "There are %d TXT records at %s; there may be one.", len(texts), name)
	}
	if code, what := judgeKey(texts[0], expected); code != "" {
		return bad(code, "The DKIM record %s %s.", name, what)
	}
	if err := c.verifySample(k); err != nil {
		return bad("dkim-sample", "A message signed with the key of %s does not verify by its record: %s.", name,
			clean(err.Error()))
	}
	state.ok = true
	c.judgeGoodKey(k, texts[0])
	return state
}

// missingKey looks where a record may have gone: control panels append the domain, and people write it too.
func (c *dkimCheck) missingKey(k Key, bad func(code, format string, args ...any) keyState) keyState {
	if doubled := k.RecordName() + "." + k.Domain; len(doubled) < 250 {
		isKey := func(text string) bool {
			_, err := parseKey(text)
			return err == nil
		}
		if texts, _ := c.see.texts(doubled); slices.ContainsFunc(texts, isKey) {
			return bad("dkim-doubled", "The DKIM record stands at %s: the domain is there twice.", doubled)
		}
	}
	return bad("dkim-missing", "The DKIM record %s is not published.", k.RecordName())
}

// judgeKey compares a published record with the one that is expected. The code is "" where it does its work.
func judgeKey(published, expected string) (code, what string) {
	want, _ := parseKey(expected)
	got, err := parseKey(published)
	switch {
	case err != nil && isCut(published, expected):
		return "dkim-cut", fmt.Sprintf("ends after %d of %d characters", len(published), len(expected))
	case err != nil:
		return "dkim-syntax", "cannot be read: " + clean(err.Error())
	case got.revoked:
		return "dkim-revoked", "has an empty p=, which means that the key is revoked"
	case got.stripped:
		return "dkim-quoted", "has quotes or backslashes inside, so receivers cannot read the key"
	case got.kind != want.kind:
		return "dkim-wrong-type", fmt.Sprintf("says k=%s, but the key is %s", clean(got.kind), want.kind)
	case got.bits > 0 && got.bits < 1024:
		return "dkim-short", fmt.Sprintf("has a key of %d bits, and receivers refuse less than 1024", got.bits)
	case !bytes.Equal(got.key, want.key) && isCut(published, expected):
		return "dkim-cut", fmt.Sprintf("ends after %d of %d characters", len(published), len(expected))
	case !bytes.Equal(got.key, want.key):
		return "dkim-other-key", "has another key than the one that Postern signs with"
	case got.noHash:
		return "dkim-hash", "has an h= that excludes sha256, which all signatures use"
	case got.notMail:
		return "dkim-service", "has an s= that excludes mail"
	}
	return "", ""
}

// isCut reports whether a record's key is the beginning of the expected one: control panels cut at 255.
func isCut(published, expected string) bool {
	_, got, ok := strings.Cut(published, "p=")
	_, want, _ := strings.Cut(expected, "p=")
	got = strings.TrimRight(got, `"; `)
	return ok && len(got) >= 40 && len(got) < len(want) && strings.HasPrefix(want, got)
}

// judgeGoodKey tells what is not as it should be though signatures verify.
func (c *dkimCheck) judgeGoodKey(k Key, text string) {
	if !k.Signs {
		return
	}
	r, _ := parseKey(text)
	if r.testing {
		c.tell.note("dkim-testing", "The DKIM record %s says t=y: the domain is only testing DKIM.", k.RecordName())
	}
	if r.bits > 0 && r.bits < 2048 {
		c.tell.note("dkim-weak", "The DKIM key %s has %d bits.", k.RecordName(), r.bits)
	}
}

// verifySample signs a message and has it verified by what DNS says.
func (c *dkimCheck) verifySample(k Key) error {
	message := "From: postmaster@" + c.o.Domain + "\r\nSubject: Sample\r\n\r\nSigned to be verified.\r\n"
	fields, err := sign.Sign(mail.BytesContent(message), []sign.Key{k.Key}, c.o.Now, sign.Options{})
	if err != nil {
		return err
	}
	found, err := dkim.VerifyWithOptions(io.MultiReader(bytes.NewReader(fields), strings.NewReader(message)),
		&dkim.VerifyOptions{LookupTXT: c.see.lookup, MaxVerifications: 1})
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return errors.New("no signature is found")
	}
	return found[0].Err
}
