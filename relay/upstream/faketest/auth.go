package faketest

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

func (c *Session) auth(args string) error {
	f := strings.Fields(args)
	if len(f) == 0 {
		c.Reply("501 5.5.4 which?")
		return nil
	}
	var initial *string
	if len(f) > 1 && !c.srv.cfg.NoInitial {
		initial = &f[1]
	}
	user, ok, err := c.exchange(strings.ToUpper(f[0]), initial)
	if err != nil {
		return err
	}
	if !ok {
		c.count(func(n *Counts) { n.Refused++ })
		c.Reply("535 5.7.8 wrong user name or password")
		return nil
	}
	c.User = user
	c.count(func(n *Counts) { n.Logins++ })
	c.Reply("235 2.7.0 welcome")
	return nil
}

func (c *Session) exchange(mechanism string, initial *string) (user string, ok bool, err error) {
	switch mechanism {
	case "PLAIN":
		return c.plain(initial)
	case "LOGIN":
		return c.login()
	case "CRAM-MD5":
		return c.cram()
	case "SCRAM-SHA-256":
		return c.scram(initial)
	}
	return "", false, nil
}

// challenge sends one and returns the decoded response.
func (c *Session) challenge(text string) (string, error) {
	c.Reply("334 " + base64.StdEncoding.EncodeToString([]byte(text)))
	line, err := c.br.ReadString('\n')
	if err != nil {
		return "", err
	}
	b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
	return string(b), nil
}

func (c *Session) first(initial *string) (string, error) {
	if initial == nil {
		return c.challenge("")
	}
	b, err := base64.StdEncoding.DecodeString(*initial)
	return string(b), err
}

func (c *Session) plain(initial *string) (string, bool, error) {
	r, err := c.first(initial)
	f := strings.Split(r, "\x00")
	if err != nil || len(f) != 3 {
		return "", false, err
	}
	return f[1], c.check(f[1], f[2]), nil
}

func (c *Session) check(user, password string) bool {
	want, ok := c.srv.cfg.Users[user]
	return ok && want == password
}

func (c *Session) login() (string, bool, error) {
	user, err := c.challenge("Username:")
	if err != nil {
		return "", false, err
	}
	password, err := c.challenge("Password:")
	return user, err == nil && c.check(user, password), err
}

func (c *Session) cram() (string, bool, error) {
	challenge := fmt.Sprintf("<%d.1@fake.example.com>", c.Number)
	r, err := c.challenge(challenge)
	if err != nil {
		return "", false, err
	}
	user, digest, _ := strings.Cut(r, " ")
	mac := hmac.New(md5.New, []byte(c.srv.cfg.Users[user]))
	mac.Write([]byte(challenge))
	return user, digest == hex.EncodeToString(mac.Sum(nil)), nil
}

const scramIterations = 4096

func (c *Session) scram(initial *string) (string, bool, error) {
	first, err := c.first(initial)
	if err != nil {
		return "", false, err
	}
	bare := strings.TrimPrefix(first, "n,,")
	name, nonce, _ := strings.Cut(strings.TrimPrefix(bare, "n="), ",r=")
	user := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	nonce += "server"
	salt := []byte("salt of " + user)
	server := fmt.Sprintf("r=%s,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString(salt), scramIterations)
	final, err := c.challenge(server)
	if err != nil {
		return "", false, err
	}
	without, proof, _ := strings.Cut(final, ",p=")
	message := bare + "," + server + "," + without
	salted, err := pbkdf2.Key(sha256.New, c.srv.cfg.Users[user], salt, scramIterations, sha256.Size)
	if err != nil {
		return "", false, err
	}
	client := mac(salted, "Client Key")
	stored := sha256.Sum256(client)
	got, _ := base64.StdEncoding.DecodeString(proof)
	want := mac(stored[:], message)
	if len(got) != len(want) {
		return "", false, nil
	}
	subtle.XORBytes(got, got, want)
	if !hmac.Equal(got, client) {
		return "", false, nil
	}
	signature := mac(mac(salted, "Server Key"), message)
	_, err = c.challenge("v=" + base64.StdEncoding.EncodeToString(signature))
	return user, err == nil, err
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
