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
	x := &exchange{session: c, mechanism: strings.ToUpper(f[0])}
	run, known := mechanisms[x.mechanism]
	if !known {
		c.Reply("504 5.5.4 unknown mechanism")
		return nil
	}
	if len(f) > 1 && !c.srv.cfg.NoInitial {
		x.initial = &f[1]
	}
	user, refusal, err := run(x)
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

// exchange is one run of a mechanism.
type exchange struct {
	session   *Session
	mechanism string
	initial   *string // response
}

// mechanisms return the user and why it is refused, "" to let it in.
var mechanisms = map[string]func(*exchange) (user, refusal string, err error){
	"PLAIN": (*exchange).plain, "LOGIN": (*exchange).login, "XOAUTH2": (*exchange).xoauth2,
	"OAUTHBEARER": (*exchange).bearer, "CRAM-MD5": (*exchange).cram, "SCRAM-SHA-256": (*exchange).scram,
}

var errMalformed = errors.New("malformed response")

// Challenge sends one and returns the decoded response.
func (c *Session) Challenge(text string) (string, error) {
	c.Reply("334 " + base64.StdEncoding.EncodeToString([]byte(text)))
	line, err := c.link.line(maxAuth)
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

func (x *exchange) first(challenge string) (string, error) {
	if x.initial == nil {
		return x.session.Challenge(challenge)
	}
	return decode(*x.initial)
}

func (x *exchange) check(user, secret string) (who, refusal string, err error) {
	cfg := &x.session.srv.cfg
	if cfg.Login != nil {
		return user, cfg.Login(x.session, x.mechanism, user, secret), nil
	}
	if want, ok := cfg.Users[user]; !ok || want != secret {
		return user, wrong, nil
	}
	return user, "", nil
}

func (x *exchange) plain() (user, refusal string, err error) {
	r, err := x.first("")
	if err != nil {
		return "", "", err
	}
	f := strings.Split(r, "\x00")
	if len(f) != 3 {
		return "", wrong, nil
	}
	return x.check(f[1], f[2])
}

func (x *exchange) login() (user, refusal string, err error) {
	if user, err = x.first("Username:"); err != nil {
		return "", "", err
	}
	password, err := x.session.Challenge("Password:")
	if err != nil {
		return "", "", err
	}
	return x.check(user, password)
}

// xoauth2 is https://developers.google.com/workspace/gmail/imap/xoauth2-protocol.
func (x *exchange) xoauth2() (user, refusal string, err error) {
	return x.token("user=", "\x01auth=Bearer ")
}

// bearer is RFC 7628.
func (x *exchange) bearer() (user, refusal string, err error) {
	return x.token("n,a=", ",\x01")
}

func (x *exchange) token(before, behind string) (user, refusal string, err error) {
	r, err := x.first("")
	if err != nil {
		return "", "", err
	}
	r, begins := strings.CutPrefix(r, before)
	user, rest, _ := strings.Cut(r, behind)
	rest, ends := strings.CutSuffix(rest, "\x01\x01")
	if !begins || !ends || user == "" {
		return "", malformed, nil
	}
	return x.check(user, rest[strings.LastIndex(rest, " ")+1:])
}

func (x *exchange) cram() (user, refusal string, err error) {
	challenge := fmt.Sprintf("<%d.1@fake.example.com>", x.session.Number)
	r, err := x.session.Challenge(challenge)
	if err != nil {
		return "", "", err
	}
	user, digest, _ := strings.Cut(r, " ")
	mac := hmac.New(md5.New, []byte(x.session.srv.cfg.Users[user]))
	mac.Write([]byte(challenge))
	if digest != hex.EncodeToString(mac.Sum(nil)) {
		return user, wrong, nil
	}
	return user, "", nil
}

const scramIterations = 4096

// scram is RFC 7677, written out so that the client's library is not tested against itself.
func (x *exchange) scram() (user, refusal string, err error) {
	first, err := x.first("")
	if err != nil {
		return "", "", err
	}
	bare := strings.TrimPrefix(first, "n,,")
	name, nonce, _ := strings.Cut(strings.TrimPrefix(bare, "n="), ",r=")
	user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	nonce += "server"
	salt := []byte("salt of " + user)
	server := fmt.Sprintf("r=%s,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString(salt), scramIterations)
	final, err := x.session.Challenge(server)
	if err != nil {
		return "", "", err
	}
	without, proof, _ := strings.Cut(final, ",p=")
	message := bare + "," + server + "," + without
	salted, err := pbkdf2.Key(sha256.New, x.session.srv.cfg.Users[user], salt, scramIterations, sha256.Size)
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
	_, err = x.session.Challenge("v=" + base64.StdEncoding.EncodeToString(signature))
	return user, "", err
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
