package auth

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/mail"
)

const cramSecret = "k3m9pright"

// newCramRig has a device with keys, one that is locked, one without keys, one with a chosen password, and a person
// with keys that nobody should have made.
func newCramRig(t testing.TB, o Options) (*rig, *proofs) {
	t.Helper()
	r, p := newScramRig(t, o)
	hash := HashGenerated(testPepper, cramSecret)
	for _, u := range []User{
		{Login: "scanner 2", Device: true, Generated: true},
		{Login: "lockedscanner", Device: true, Generated: true, Locked: true},
		{Login: "inside", Device: true, Generated: true, Networks: prefixes("192.0.2.0/24")},
		{Login: "chosen", Device: true},
		{Login: "person", Generated: true},
	} {
		u.Hash = hash
		r.users.put(u)
		p.cram[u.Login] = DeriveCram(cramSecret)
	}
	r.users.put(User{Login: "keyless", Hash: hash, Device: true, Generated: true})
	return r, p
}

// cram logs in and returns the reply and the reason.
func (r *rig) cram(t testing.TB, login, secret string, client netip.Addr) (mail.Reply, error) {
	t.Helper()
	x, challenge, why := r.cramBegin(t, client)
	_, reply := x.Next(t.Context(), cramAnswer(login, secret, challenge))
	return reply, *why
}

func (r *rig) cramBegin(t testing.TB, client netip.Addr) (Exchange, []byte, *error) {
	t.Helper()
	why := new(error)
	x, err := NewExchange("cram-md5", Checks{Hostname: "relay.example.com",
		Cram: func(ctx context.Context, login string, a CramAnswer) mail.Reply {
			_, err := r.Cram(ctx, login, a, client)
			if *why = err; err == nil {
				return replyOK
			}
			reply, _ := mail.ReplyFor(err)
			return reply
		}})
	wantOK(t, err)
	challenge, reply := x.Next(t.Context(), nil)
	if !reply.IsZero() {
		t.Fatal(reply)
	}
	return x, challenge, why
}

// cramAnswer is a client's, by the HMAC of the library.
func cramAnswer(login, secret string, challenge []byte) []byte {
	mac := hmac.New(md5.New, []byte(secret))
	mac.Write(challenge)
	return fmt.Appendf(nil, "%s %x", login, mac.Sum(nil))
}

// TestCramVector is the example of RFC 2195 §2; doveadm makes the same keys.
func TestCramVector(t *testing.T) {
	keys := DeriveCram("tanstaaftanstaaf")
	got := keys.answer([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if hex.EncodeToString(got[:]) != "b913a602c7eda7a495b4e6e7334d3890" {
		t.Errorf("%x", got)
	}
	out, err := exec.Command(testkit.Need(t, "doveadm"), "pw", "-s", "CRAM-MD5", "-p", "tanstaaftanstaaf").Output()
	if want := "{CRAM-MD5}" + string(keys.Encode()); err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("doveadm: %s %v, want %s", out, err, want)
	}
	long := strings.Repeat("k3m9p", 20)
	mac := hmac.New(md5.New, []byte(long))
	mac.Write([]byte("<1@a>"))
	if got := DeriveCram(long).answer([]byte("<1@a>")); !hmac.Equal(got[:], mac.Sum(nil)) {
		t.Errorf("a long key: %x", got)
	}
	back, err := DecodeCram(keys.Encode())
	if err != nil || back != keys || back.IsZero() {
		t.Error(back, err)
	}
	for _, bad := range []Secret{"", "00", keys.Encode() + "00", Secret(strings.Repeat("x", 64))} {
		if _, err := DecodeCram(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestCram: only devices with a generated password and keys come in; whoever does not hears the same, without a hash.
func TestCram(t *testing.T) {
	r, p := newCramRig(t, Options{})
	var said mail.Reply
	for _, c := range []struct {
		login, secret string
		client        netip.Addr
		why           error
	}{
		{"scanner 2", cramSecret, there, nil},
		{"SCANNER 2", cramSecret, there, nil},
		{"inside", cramSecret, here, nil},
		{"inside", cramSecret, there, ErrNetwork},
		{"scanner 2", "wrong", there, ErrWrongPassword},
		{"scanner 2", "", there, ErrWrongPassword},
		{"lockedscanner", cramSecret, there, ErrLocked},
		{"keyless", cramSecret, there, ErrNoCramKeys},
		{"keyless", "", there, ErrNoCramKeys}, // the keys that it does not have are not those of no password
		{"chosen", cramSecret, there, ErrNoCramKeys},
		{"person", cramSecret, there, ErrNoCramKeys},
		{"anna", "right", there, ErrNoCramKeys},
		{"nobody", cramSecret, there, ErrUnknownLogin},
		{"nobody\u3000", cramSecret, there, ErrUnknownLogin},
	} {
		reply, why := r.cram(t, c.login, c.secret, c.client)
		if c.why == nil {
			if !reply.OK() {
				t.Errorf("%s: %v", c.login, why)
			}
			continue
		}
		if said.IsZero() {
			said = reply
		}
		if reply.Code != 535 || reply != said || !isError(why, c.why) && !isError(why, ErrMalformed) {
			t.Errorf("%s: %q, because of %v; want %q, %v", c.login, reply, why, said, c.why)
		}
	}
	if r.hashes.Load() != 0 {
		t.Errorf("%d hashes", r.hashes.Load())
	}
	r.SetSources([]Source{&otherSource{}, &storeSource{users: p, pepper: testPepper, argon: fakeArgon}})
	if reply, _ := r.cram(t, "scanner 2", cramSecret, there); reply.Code != 535 {
		t.Error("a source that may know the login stands before the store:", reply)
	}
}

// otherSource is one without keys.
type otherSource struct{}

func (*otherSource) Name() string { return "other" }
func (*otherSource) Verify(context.Context, string, string) (Identity, error) {
	return Identity{}, ErrUnknownLogin
}

// TestCramCounts: wrong answers count as wrong passwords where a device has keys. Of anybody else, whatever comes
// counts once, for the address alone: what smtplib tries before PLAIN locks nobody out.
func TestCramCounts(t *testing.T) {
	lock := Lockout{Failures: 3, Window: minute, Duration: minute}
	r, _ := newCramRig(t, Options{Lockout: lock})
	for range 3 {
		r.cram(t, "scanner 2", "wrong", there)
	}
	if len(r.locks) != 1 {
		t.Fatal(r.locks)
	}
	if _, why := r.cram(t, "scanner 2", "wrong", there); !isError(why, ErrLockedOut) {
		t.Error(why)
	}
	if reply, why := r.cram(t, "scanner 2", cramSecret, there); !reply.OK() {
		t.Error("its own password is locked out:", why)
	}
	for n := range 50 { // from everywhere
		for _, login := range []string{"anna", "keyless", "nobody"} {
			r.cram(t, login, "right", from(n))
			r.cram(t, login, "wrong", from(n/2))
		}
	}
	for _, l := range r.locks {
		if l.Login != "" {
			t.Errorf("%+v", l)
		}
	}
	wantOK(t, r.try("anna", "right", here))
	r, _ = newCramRig(t, Options{Lockout: lock})
	for range 50 {
		r.cram(t, "anna", "right", here)
	}
	wantOK(t, r.try("anna", "right", here))
	wantOK(t, r.try("anna", "right", there))
	if len(r.locks) != 0 {
		t.Errorf("%v", r.locks)
	}
	for n := range 3 {
		r.cram(t, fmt.Sprintf("nobody%d", n), "guess", from(9))
	}
	if len(r.locks) != 1 || r.locks[0].Login != "" {
		t.Errorf("who looks for logins is not locked out: %v", r.locks)
	}
}

// TestCramNonce: each challenge is another, and no answer serves twice or elsewhere.
func TestCramNonce(t *testing.T) {
	r, _ := newCramRig(t, Options{})
	x, one, _ := r.cramBegin(t, there)
	y, two, _ := r.cramBegin(t, there)
	if string(one) == string(two) || !strings.HasSuffix(string(one), "@relay.example.com>") || one[0] != '<' {
		t.Fatalf("%s %s", one, two)
	}
	answer := cramAnswer("scanner 2", cramSecret, one)
	if _, reply := y.Next(t.Context(), answer); reply.Code != 535 {
		t.Error("played back:", reply)
	}
	if _, reply := y.Next(t.Context(), cramAnswer("scanner 2", cramSecret, two)); reply.Code != 503 {
		t.Error("a second answer:", reply)
	}
	if _, reply := x.Next(t.Context(), answer); !reply.OK() {
		t.Error(reply)
	}
	if _, reply := x.Next(t.Context(), answer); reply.Code != 503 {
		t.Error("the same again:", reply)
	}
	z, _ := NewExchange(CramMD5, anyChecks())
	if _, reply := z.Next(t.Context(), []byte{}); reply.Code != 501 {
		t.Error("an initial response (RFC 4954 §4):", reply)
	}
}

// TestCramOutage: a store that cannot be asked is 454 and no failure.
func TestCramOutage(t *testing.T) {
	r, _ := newCramRig(t, Options{Lockout: Lockout{Failures: 1, Window: minute, Duration: minute}})
	r.users.fail(fmt.Errorf("disk"))
	if reply, _ := r.cram(t, "scanner 2", cramSecret, there); reply.Code != 454 {
		t.Fatal(reply)
	}
	r.users.fail(nil)
	if reply, why := r.cram(t, "scanner 2", cramSecret, there); !reply.OK() {
		t.Error(why)
	}
}

func TestCramAnswers(t *testing.T) {
	digest := strings.Repeat("0a", md5.Size)
	for response, code := range map[string]int{
		"": 501, " ": 501, "anna": 501, "anna ": 501, digest: 501, "anna " + digest[1:]: 501,
		"anna " + digest + "0": 501, "anna " + digest + " ": 501, "anna " + strings.Repeat("xy", 16): 501,
		" " + digest: 535, "an\r\nna " + digest: 501, "an\x00na " + digest: 501, "\xff " + digest: 501,
		long(MaxLength+1) + " " + digest: 501, long(5000): 501,
		"anna " + digest: 235, "an na " + digest: 235, "anna " + strings.ToUpper(digest): 235,
		long(MaxLength) + " " + digest: 235,
	} {
		x, _ := NewExchange(CramMD5, Checks{Cram: func(_ context.Context, login string, a CramAnswer) mail.Reply {
			if !strings.EqualFold(login+" "+hex.EncodeToString(a.Digest[:]), response) {
				t.Errorf("%q is taken as %q %x", response, login, a.Digest)
			}
			return replyOK
		}})
		x.Next(t.Context(), nil)
		if _, reply := x.Next(t.Context(), []byte(response)); reply.Code != code {
			t.Errorf("%q: %q, want %d", response, reply, code)
		}
	}
}

// FuzzCram: what reaches the check is a login that can exist with a digest, an exchange ends, and nothing panics.
func FuzzCram(f *testing.F) {
	f.Add([]byte("anna b913a602c7eda7a495b4e6e7334d3890"))
	f.Add([]byte(" b913a602c7eda7a495b4e6e7334d3890"))
	f.Add([]byte("an na b913a602c7eda7a495b4e6e7334d389g"))
	f.Fuzz(func(t *testing.T, response []byte) {
		called := false
		x, _ := NewExchange(CramMD5, Checks{Cram: func(_ context.Context, login string, a CramAnswer) mail.Reply {
			called = true
			checkCredential(t, recorder{login: login, password: hex.EncodeToString(a.Digest[:])})
			if len(a.Challenge) == 0 {
				t.Fatal("no challenge")
			}
			return replyOK
		}})
		x.Next(t.Context(), nil)
		if _, reply := x.Next(t.Context(), response); reply.IsZero() || reply.OK() != called {
			t.Fatalf("%q: %q, checked %v", response, reply, called)
		}
	})
}
