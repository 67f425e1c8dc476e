package fakesmtp

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// What a login is refused with.
const (
	wrong     = "535 5.7.8 wrong user name or password"
	malformed = "501 5.5.4 malformed response"
)

// auth is AUTH (RFC 4954), which the hook has let.
func (c *Session) auth(args string) error {
	f := strings.Fields(args)
	if c.barred(false) {
		return nil
	}
	if c.User != "" || len(f) == 0 {
		c.Reply("503 5.5.1 bad sequence of commands")
		return nil
	}
	exchange, known := mechanisms[strings.ToUpper(f[0])]
	if !known {
		c.Reply("504 5.5.4 unknown mechanism")
		return nil
	}
	var initial *string
	if len(f) > 1 && !c.srv.cfg.NoInitial {
		initial = &f[1]
	}
	user, refusal, err := exchange(c, initial)
	switch {
	case errors.Is(err, errMalformed):
		refusal = malformed
	case err != nil:
		return err
	}
	if refusal != "" {
		c.srv.count(func(n *Counts) { n.Refused++ })
		_, err := c.do(Action{Reply: refusal})
		return err
	}
	c.User = user
	c.srv.count(func(n *Counts) { n.Logins++ })
	c.Reply("235 2.7.0 welcome")
	return nil
}

// mechanisms return the user and why it is refused, "" to let it in.
var mechanisms = map[string]func(c *Session, initial *string) (user, refusal string, err error){
	"PLAIN": (*Session).plain, "LOGIN": (*Session).login, "CRAM-MD5": (*Session).cram, "SCRAM-SHA-256": (*Session).scram,
	"XOAUTH2": (*Session).xoauth2, "OAUTHBEARER": (*Session).bearer,
}

var errMalformed = errors.New("malformed response")

// Challenge sends one and returns the decoded response.
func (c *Session) Challenge(text string) (string, error) {
	c.Reply("334 " + base64.StdEncoding.EncodeToString([]byte(text)))
	line, err := c.line(maxAuth)
	if err != nil {
		return "", err
	}
	return decode(line)
}

func decode(response string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		return "", errMalformed
	}
	return string(b), nil
}

func (c *Session) first(initial *string, challenge string) (string, error) {
	if initial == nil {
		return c.Challenge(challenge)
	}
	return decode(*initial)
}

func (c *Session) check(mechanism, user, secret string) (who, refusal string, err error) {
	if c.srv.cfg.Login != nil {
		return user, c.srv.cfg.Login(c, mechanism, user, secret), nil
	}
	if want, ok := c.srv.cfg.Users[user]; !ok || want != secret {
		return user, wrong, nil
	}
	return user, "", nil
}

func (c *Session) plain(initial *string) (user, refusal string, err error) {
	r, err := c.first(initial, "")
	if err != nil {
		return "", "", err
	}
	f := strings.Split(r, "\x00")
	if len(f) != 3 {
		return "", wrong, nil
	}
	return c.check("PLAIN", f[1], f[2])
}

func (c *Session) login(initial *string) (user, refusal string, err error) {
	if user, err = c.first(initial, "Username:"); err != nil {
		return "", "", err
	}
	password, err := c.Challenge("Password:")
	if err != nil {
		return "", "", err
	}
	return c.check("LOGIN", user, password)
}

// xoauth2 is https://developers.google.com/workspace/gmail/imap/xoauth2-protocol.
func (c *Session) xoauth2(initial *string) (user, refusal string, err error) {
	return c.token("XOAUTH2", initial, "user=", "\x01auth=Bearer ")
}

// bearer is RFC 7628.
func (c *Session) bearer(initial *string) (user, refusal string, err error) {
	return c.token("OAUTHBEARER", initial, "n,a=", ",\x01")
}

func (c *Session) token(mechanism string, initial *string, before, behind string) (user, refusal string, err error) {
	r, err := c.first(initial, "")
	if err != nil {
		return "", "", err
	}
	r, begins := strings.CutPrefix(r, before)
	user, rest, _ := strings.Cut(r, behind)
	rest, ends := strings.CutSuffix(rest, "\x01\x01")
	if !begins || !ends || user == "" {
		return "", malformed, nil
	}
	return c.check(mechanism, user, rest[strings.LastIndex(rest, " ")+1:])
}

func (c *Session) cram(*string) (user, refusal string, err error) {
	challenge := fmt.Sprintf("<%d.1@fake.example.com>", c.Number)
	r, err := c.Challenge(challenge)
	if err != nil {
		return "", "", err
	}
	user, digest, _ := strings.Cut(r, " ")
	mac := hmac.New(md5.New, []byte(c.srv.cfg.Users[user]))
	mac.Write([]byte(challenge))
	if digest != hex.EncodeToString(mac.Sum(nil)) {
		return user, wrong, nil
	}
	return user, "", nil
}

const scramIterations = 4096

// scram is RFC 7677, written out so that the client's library is not tested against itself.
func (c *Session) scram(initial *string) (user, refusal string, err error) {
	first, err := c.first(initial, "")
	if err != nil {
		return "", "", err
	}
	bare := strings.TrimPrefix(first, "n,,")
	name, nonce, _ := strings.Cut(strings.TrimPrefix(bare, "n="), ",r=")
	user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	nonce += "server"
	salt := []byte("salt of " + user)
	server := fmt.Sprintf("r=%s,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString(salt), scramIterations)
	final, err := c.Challenge(server)
	if err != nil {
		return "", "", err
	}
	without, proof, _ := strings.Cut(final, ",p=")
	message := bare + "," + server + "," + without
	salted, err := pbkdf2.Key(sha256.New, c.srv.cfg.Users[user], salt, scramIterations, sha256.Size)
	if err != nil {
		return "", "", err
	}
	client := mac(salted, "Client Key")
	stored := sha256.Sum256(client)
	got, _ := base64.StdEncoding.DecodeString(proof)
	want := mac(stored[:], message)
	if len(got) != len(want) {
		return user, wrong, nil
	}
	subtle.XORBytes(got, got, want)
	if !hmac.Equal(got, client) {
		return user, wrong, nil
	}
	signature := mac(mac(salted, "Server Key"), message)
	_, err = c.Challenge("v=" + base64.StdEncoding.EncodeToString(signature))
	return user, "", err
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
