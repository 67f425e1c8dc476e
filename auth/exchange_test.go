package auth

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"postern/mail"
)

// recorder is a CheckFunc that remembers what it was asked.
type recorder struct {
	called                   int
	authzid, login, password string
}

var replyOK = mail.R(235, "2.7.0", "welcome")

func (r *recorder) check(_ context.Context, authzid, login, password string) mail.Reply {
	r.called++
	r.authzid, r.login, r.password = authzid, login, password
	return replyOK
}

func TestPlain(t *testing.T) {
	for _, c := range []struct {
		name, response string
		code           int
		login          string
	}{
		{"plain", "\x00anna\x00secret", 235, "anna"},
		{"authzid is the login", "anna\x00anna\x00secret", 235, "anna"},
		{"authzid in another case", "ANNA\x00anna\x00secret", 235, "anna"},
		{"blanks and signs", "\x00an na\x00 s&=+\" ", 235, "an na"},
		{"UTF-8", "\x00jörg\x00пароль", 235, "jörg"},
		{"256 octets", "\x00" + long(256) + "\x00" + long(256), 235, long(256)},
		{"somebody else", "boss\x00anna\x00secret", 535, ""},
		{"empty login", "\x00\x00secret", 535, ""},
		{"empty password", "\x00anna\x00", 535, ""},
		{"login too long", "\x00" + long(257) + "\x00secret", 535, ""},
		{"password too long", "\x00anna\x00" + long(257), 535, ""},
		{"empty", "", 501, ""},
		{"two parts", "anna\x00secret", 501, ""},
		{"four parts", "\x00anna\x00sec\x00ret", 501, ""},
		{"line end in the login", "\x00an\r\nna\x00secret", 501, ""},
		{"line end in the password", "\x00anna\x00sec\nret", 501, ""},
		{"DEL", "\x00anna\x7f\x00secret", 501, ""},
		{"C1", "\x00anna\xc2\x85\x00secret", 501, ""},
		{"direction mark", "\x00anna\u202e\x00secret", 501, ""},
		{"invalid UTF-8 in the login", "\x00anna\xff\x00secret", 501, ""},
		{"invalid UTF-8 in the password", "\x00anna\x00\xc3", 501, ""},
	} {
		for _, initial := range []bool{true, false} {
			var r recorder
			e, err := NewExchange("plain", Checks{Password: r.check})
			wantOK(t, err)
			if !initial {
				challenge, reply := e.Next(t.Context(), nil)
				if challenge == nil || len(challenge) != 0 || !reply.IsZero() {
					t.Fatalf("first challenge = %q, %q", challenge, reply)
				}
			}
			_, reply := e.Next(t.Context(), []byte(c.response))
			if reply.Code != c.code || (r.called > 0) != (c.code == 235) || r.login != c.login {
				t.Errorf("%s (initial response %v): %q, checked %d times, login %q", c.name, initial, reply, r.called,
					r.login)
			}
			if _, reply = e.Next(t.Context(), []byte("\x00anna\x00secret")); reply.Code != 503 || r.called > 1 {
				t.Errorf("%s: an exchange that has ended answers %q", c.name, reply)
			}
		}
	}
}

func TestLogin(t *testing.T) {
	for _, c := range []struct {
		name, login, password string
		code                  int
	}{
		{"plain", "anna@example.com", "secret", 235},
		{"empty login", "", "secret", 535},
		{"empty password", "anna", "", 535},
		{"login too long", long(257), "", 535},
		{"password too long", "anna", long(257), 535},
		{"NUL", "an\x00na", "secret", 501},
		{"line end", "anna", "sec\r\nret", 501},
		{"invalid UTF-8", "\xff", "secret", 501},
	} {
		for _, initial := range []bool{true, false} {
			var r recorder
			e, err := NewExchange("LOGIN", Checks{Password: r.check})
			wantOK(t, err)
			if !initial {
				if challenge, reply := e.Next(t.Context(), nil); string(challenge) != "Username:" || !reply.IsZero() {
					t.Fatalf("first challenge = %q, %q", challenge, reply)
				}
			}
			challenge, reply := e.Next(t.Context(), []byte(c.login))
			if reply.IsZero() {
				if string(challenge) != "Password:" {
					t.Fatalf("second challenge = %q", challenge)
				}
				_, reply = e.Next(t.Context(), []byte(c.password))
			}
			if reply.Code != c.code || (r.called > 0) != (c.code == 235) {
				t.Errorf("%s (initial response %v): %q, checked %d times", c.name, initial, reply, r.called)
			}
			if r.called > 0 && (r.authzid != "" || r.login != c.login || r.password != c.password) {
				t.Errorf("%s: checked %q %q", c.name, r.authzid, r.login)
			}
			if _, reply = e.Next(t.Context(), []byte("more")); reply.Code != 503 || r.called > 1 {
				t.Errorf("%s: an exchange that has ended answers %q", c.name, reply)
			}
		}
	}
}

// TestEmptyResponsesEnd: an empty line is a response, so that no exchange goes on for ever.
func TestEmptyResponsesEnd(t *testing.T) {
	for _, m := range Mechanisms {
		e, _ := NewExchange(m, anyChecks())
		ended := false
		for range 4 {
			_, reply := e.Next(t.Context(), nil)
			ended = ended || !reply.IsZero()
		}
		if !ended {
			t.Errorf("%s goes on for ever", m)
		}
	}
}

func TestUnknownMechanism(t *testing.T) {
	for _, m := range []string{"", "DIGEST-MD5", "PLAIN ", "LOGIN\x00"} {
		if _, err := NewExchange(m, Checks{}); err != ErrMechanism {
			t.Errorf("%q: %v", m, err)
		}
	}
}

// FuzzPlain: what reaches the check is always a credential that could exist, and nobody acts as
// somebody else.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "\x00", "\x00\x00", "\x00\x00\x00", "\x00anna\x00secret", "anna\x00anna\x00secret",
		"boss\x00anna\x00s", "\x00a\xff\x00b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		var r recorder
		e, _ := NewExchange("PLAIN", Checks{Password: r.check})
		_, reply := e.Next(t.Context(), append([]byte{}, response...))
		if reply.IsZero() || reply.OK() != (r.called == 1) || r.called > 1 {
			t.Fatalf("%q: %q, checked %d times", response, reply, r.called)
		}
		if r.called == 0 {
			return
		}
		checkCredential(t, r)
		if !bytes.Equal(response, []byte(r.authzid+"\x00"+r.login+"\x00"+r.password)) {
			t.Fatalf("%q was taken apart as %q %q %q", response, r.authzid, r.login, r.password)
		}
	})
}

// FuzzLogin holds LOGIN to the same.
func FuzzLogin(f *testing.F) {
	f.Add([]byte("anna"), []byte("secret"), true)
	f.Add([]byte(""), []byte(""), false)
	f.Add([]byte("a\x00"), []byte("\xff"), false)
	f.Fuzz(func(t *testing.T, login, password []byte, initial bool) {
		var r recorder
		e, _ := NewExchange("LOGIN", Checks{Password: r.check})
		if !initial {
			e.Next(t.Context(), nil)
		}
		if login == nil {
			login = []byte{}
		}
		_, reply := e.Next(t.Context(), login)
		if reply.IsZero() {
			_, reply = e.Next(t.Context(), password)
		}
		if reply.IsZero() || reply.OK() != (r.called == 1) {
			t.Fatalf("%q, checked %d times", reply, r.called)
		}
		if r.called == 1 {
			checkCredential(t, r)
		}
	})
}

func checkCredential(t *testing.T, r recorder) {
	t.Helper()
	if _, ok := NormalizeLogin(r.login); !ok {
		t.Fatalf("login %q was let through", r.login)
	}
	if err := CheckPassword(r.password); err != nil {
		t.Fatalf("password %q was let through: %v", r.password, err)
	}
	if r.authzid != "" && !strings.EqualFold(r.authzid, r.login) {
		t.Fatalf("%q acts as %q", r.login, r.authzid)
	}
}

// anyChecks refuse whatever they are asked.
func anyChecks() Checks {
	no := mail.R(535, "5.7.8", "no")
	return Checks{
		Password:    (&recorder{}).check,
		Scram:       func(context.Context, string) (*ScramTrial, mail.Reply) { return nil, no },
		Token:       func(context.Context, string, string) (mail.Reply, TokenChallenge) { return no, TokenChallenge{} },
		Certificate: func(context.Context, string) mail.Reply { return no },
		Cram:        func(context.Context, string, CramAnswer) mail.Reply { return no },
	}
}
