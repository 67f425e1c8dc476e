package access

import (
	"sync"
	"sync/atomic"
	"testing"

	"postern/operate"
)

// atOnce runs f some times together and returns how often it did well.
func atOnce(f func() error) int64 {
	var well atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if f() == nil {
				well.Add(1)
			}
		})
	}
	all.Wait()
	return well.Load()
}

// Of those who come together with what works once, one is let in.
func TestOnceIsOnce(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	token := r.invite("anna", operate.Admin)
	i, err := r.Invitations.Get(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	code := r.code(i.Secret)
	if n := atOnce(func() error {
		_, err := r.Invitations.Accept(ctx, token, Acceptance{Password: password, Code: code}, client)
		return err
	}); n != 1 {
		t.Errorf("%d accept one link", n)
	}
	r.clock.pass(InviteFor)
	code = r.code(i.Secret)
	cookie := ""
	var mu sync.Mutex
	if n := atOnce(func() error {
		c, err := r.Logins.Login(ctx, Credentials{"anna", password, code}, client)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			cookie = c
		}
		return err
	}); n != 1 {
		t.Errorf("%d log in with one code", n)
	}
	r.clock.pass(StrongFor)
	s, code := r.session("", cookie, ""), r.code(i.Secret)
	if n := atOnce(func() error { _, err := r.Logins.StepUp(ctx, s, code, client); return err }); n != 1 {
		t.Errorf("%d step up with one code", n)
	}

	d := newDevice()
	r.joinWithPasskey("ben", d)
	options, flow, err := r.Passkeys.Begin(ctx, "ben")
	if err != nil {
		t.Fatal(err)
	}
	response := d.get(t, options)
	if n := atOnce(func() error { _, err := r.Passkeys.Finish(ctx, flow, response, client); return err }); n != 1 {
		t.Errorf("%d log in with one answer of a passkey", n)
	}
}

func FuzzLocalPath(f *testing.F) {
	for _, s := range []string{"/", "//x", "/\\x", "/a?b#c", "http://x", "/\tx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got := LocalPath(next)
		if got == "" || got[0] != '/' || len(got) > 1 && (got[1] == '/' || got[1] == '\\') {
			t.Errorf("%q leads to %q", next, got)
		}
		for _, c := range []byte(got) {
			if c < ' ' || c == '\\' {
				t.Errorf("%q leads to %q", next, got)
			}
		}
	})
}
