package smtp

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"postern/internal/fakesmtp"
	"postern/mail"
)

func TestMechanisms(t *testing.T) {
	all := []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"}
	for _, c := range []struct {
		offered, wanted []string
		password        string
		equals          bool
		used            string
	}{
		{all, nil, password, false, "SCRAM-SHA-256"},
		{all[:3], nil, password, false, "PLAIN"},
		{all[1:3], nil, password, false, "LOGIN"},
		{all[2:3], nil, password, false, "CRAM-MD5"},
		{all, []string{"LOGIN", "PLAIN"}, password, false, "LOGIN"},
		{[]string{"XOAUTH2", "LOGIN"}, nil, password, false, "LOGIN"},
		{[]string{"PLAIN", "LOGIN"}, nil, password, true, "PLAIN"},
		{[]string{"login"}, nil, password, false, "LOGIN"},
		{all, nil, "pässword", false, "PLAIN"},                   // SCRAM would need SASLprep
		{all[:1], nil, strings.Repeat("x", 600), false, "PLAIN"}, // the initial response goes in a line of its own
		{all[3:], nil, "with,comma=and equals", false, "SCRAM-SHA-256"},
	} {
		fc := provider()
		fc.Mechanisms, fc.AuthEquals, fc.Users = c.offered, c.equals, map[string]string{user: c.password}
		fake, u := start(t, fc, func(cfg *Config) { cfg.Mechanisms, cfg.Password = c.wanted, c.password })
		wantClasses(t, send(t, u, message(t)), "delivered")
		if !slices.Contains(fake.Log(), "AUTH "+c.used) || fake.Counts().Logins != 1 {
			t.Errorf("offered %v: %v", c.offered, fake.Log())
		}
	}
}

func TestWrongPasswordIsTriedOnce(t *testing.T) {
	for _, m := range DefaultMechanisms {
		fc := provider()
		fc.Mechanisms = []string{m, "PLAIN"}
		fake, u := start(t, fc, func(cfg *Config) { cfg.Password, cfg.Mechanisms = "mistaken", []string{m} })
		r := send(t, u, message(t, "bob@example.net", "carol@example.net"))
		wantClasses(t, r, "account-fault account-fault")
		if r[0].Reply.String() != "535 5.7.8 wrong user name or password" || fake.Counts().Refused != 1 {
			t.Errorf("%s: %s, %d attempts", m, r[0].Reply, fake.Counts().Refused)
		}
	}
}

func TestNoCommonMechanism(t *testing.T) {
	for _, offered := range [][]string{nil, {"GSSAPI", "XOAUTH2"}} {
		fc := provider()
		fc.Mechanisms = offered
		fake, u := start(t, fc, nil)
		r := send(t, u, message(t))[0]
		if r.Class != mail.AccountFault || r.Stage != mail.StageAuth ||
			!strings.Contains(r.Reply.Text, "offers no AUTH mechanism") {
			t.Errorf("got %s: %s", r.Class, r.Reply)
		}
		noSecret(t, fake)
	}
}

func TestNoLoginWithoutUsername(t *testing.T) {
	fake, u := start(t, provider(), func(cfg *Config) { cfg.Username, cfg.Password = "", "" })
	wantClasses(t, send(t, u, message(t)), "delivered")
	if slices.ContainsFunc(fake.Log(), func(l string) bool { return strings.HasPrefix(l, "AUTH") }) {
		t.Error("AUTH without a username")
	}
}

func TestUnknownIdentityIsNotTriedWithOthersPassword(t *testing.T) {
	fake, u := start(t, provider(), nil)
	s, _ := u.Reserve(time.Now(), "somebody@example.com")
	r := use(s, t.Context(), message(t))
	wantClasses(t, r, "account-fault")
	noSecret(t, fake)
	if r[0].Identity != "somebody@example.com" {
		t.Errorf("identity %q", r[0].Identity)
	}
	wantClasses(t, send(t, u, message(t)), "delivered") // the other identity is not paused
}

// A server that lets us in without proving that it knows the password is somebody else.
func TestScramWantsTheServersProof(t *testing.T) {
	for name, reply := range map[string]string{
		"no proof":     "235 2.7.0 welcome",
		"wrong nonce":  "334 " + base64.StdEncoding.EncodeToString([]byte("r=other,s=c2FsdA==,i=4096")),
		"no iteration": "334 " + base64.StdEncoding.EncodeToString([]byte("r=other,s=c2FsdA==")),
		"not base64":   "334 what is your name?",
		"endless":      "334 ",
	} {
		fc := provider()
		fc.Mechanisms = []string{"SCRAM-SHA-256"}
		fc.Hook = hookOn("AUTH", 1, fakesmtp.Action{Reply: reply})
		_, u := start(t, fc, nil)
		r := send(t, u, message(t))[0]
		if r.Class != mail.AccountFault || r.Stage != mail.StageAuth {
			t.Errorf("%s: got %s: %s", name, r.Class, r.Reply)
		}
	}
}

const vectorNonce = "rOprNGfwEbeRWgbNEkqO" // of RFC 7677 §3

// newScram begins an exchange with the nonce of the vector.
func newScram(keys *scramKeys) *scramClient {
	keys.client, _ = scram.SHA256.NewClientUnprepped("user", "pencil", "")
	keys.client.WithNonceGenerator(func() string { return vectorNonce })
	return keys.begin("user", "pencil")
}

func TestScramVector(t *testing.T) { // RFC 7677 §3
	s := newScram(new(scramKeys))
	_, initial, _ := s.Start()
	if string(initial) != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("first %q", initial)
	}
	final, err := s.Next([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
		"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	if err != nil || string(final) != "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"+
		"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=" {
		t.Errorf("final %q, %v", final, err)
	}
	if s.Finish() == nil {
		t.Error("finished without the server's signature")
	}
	if _, err := s.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil {
		t.Error(err)
	}
	if err := s.Finish(); err != nil {
		t.Error(err)
	}
}

func TestScramRefuses(t *testing.T) {
	const nonce = vectorNonce
	for challenge, want := range map[string]error{
		"":                                       errScramSyntax,
		"m=x,r=" + nonce + "x,s=c2FsdA==,i=4096": errScramSyntax,
		"r=" + nonce + ",s=c2FsdA==,i=4096":      errScramNonce, // the server must add its own part
		"r=x,s=c2FsdA==,i=4096":                  errScramNonce,
		"r=" + nonce + "x,s=c2FsdA==,i=1":        errScramIterations,
		"r=" + nonce + "x,s=c2FsdA==,i=99999999": errScramIterations,
		"r=" + nonce + "x,s=,i=4096":             errScramSyntax,
		"r=" + nonce + "x,s=!,i=4096":            errScramSyntax,
		"r=" + nonce + "x,s=c2FsdA==,i=x":        errScramSyntax,
	} {
		s := newScram(new(scramKeys))
		s.Start()
		if _, err := s.Next([]byte(challenge)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", challenge, err, want)
		}
	}
	for final, want := range map[string]error{
		"e=other-error": errScramRefused,
		"v=AAAA":        errScramSignature,
		"v=!":           errScramSignature,
		"":              errScramSignature,
	} {
		s := newScram(new(scramKeys))
		s.Start()
		s.Next([]byte("r=" + nonce + "x,s=c2FsdA==,i=4096"))
		if _, err := s.Next([]byte(final)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", final, err, want)
		}
		if s.Finish() == nil {
			t.Errorf("%q: finished", final)
		}
	}
}

// Keys are derived once, and a server that sends another salt each time does not make us keep them all.
func TestScramKeepsTheKeysOfOneSalt(t *testing.T) {
	keys := new(scramKeys)
	login := func(salt string) *scram.Client {
		t.Helper()
		s := keys.begin("user", "pencil")
		used := keys.client
		s.Start()
		if _, err := s.Next([]byte("r=" + s.nonce + "x,s=" + salt + ",i=4096")); err != nil {
			t.Fatal(err)
		}
		return used
	}
	first := login("c2FsdA==")
	if login("c2FsdA==") != first {
		t.Error("keys are derived again for the same salt")
	}
	if login("b3RoZXI="); keys.client == first {
		t.Error("the keys of an old salt are kept")
	}
}

func TestCramVector(t *testing.T) { // RFC 2195 §2
	m := &cramClient{"tim", "tanstaaftanstaaf"}
	r, err := m.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if err != nil || string(r) != "tim b913a602c7eda7a495b4e6e7334d3890" {
		t.Errorf("got %q, %v", r, err)
	}
}

func FuzzScram(f *testing.F) {
	f.Add("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
	f.Add("r=,s=,i=", "e=x")
	f.Add("r=rOprNGfwEbeRWgbNEkqOx,s=AA==,i=4097,x=y", "v=")
	keys := new(scramKeys)
	f.Fuzz(func(t *testing.T, first, final string) {
		if salt, err := checkServerFirst(first, vectorNonce); err == nil && !strings.HasSuffix(salt, "i=4096") {
			return // correct, but slow
		}
		s := newScram(keys)
		s.Start()
		answer, err := s.Next([]byte(first))
		if err == nil && !strings.HasPrefix(string(answer), "c=biws,r=rOprNGfwEbeRWgbNEkqO") {
			t.Errorf("answer %q", answer)
		}
		_, verr := s.Next([]byte(final))
		if verr == nil && !strings.HasPrefix(final, "v=") {
			t.Errorf("%q proves nothing", final)
		}
		if (s.Finish() == nil) != (verr == nil) {
			t.Error("Finish and Next disagree")
		}
	})
}

func FuzzCram(f *testing.F) {
	f.Add([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, challenge []byte) {
		m := &cramClient{"tim", "tanstaaftanstaaf"}
		r, err := m.Next(challenge)
		if err == nil && (len(r) != len("tim ")+32 || !strings.HasPrefix(string(r), "tim ")) {
			t.Errorf("response %q", r)
		}
	})
}
