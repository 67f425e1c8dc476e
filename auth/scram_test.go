package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/xdg-go/scram"

	"postern/mail"
)

// proofs is users with keys.
type proofs struct {
	*users
	mu   sync.Mutex
	keys map[string]ScramKeys
	cram map[string]CramKeys
	pins map[KeyDigest]string
}

func (p *proofs) ScramUser(ctx context.Context, login string) (User, ScramKeys, error) {
	u, err := p.User(ctx, login)
	p.mu.Lock()
	defer p.mu.Unlock()
	return u, p.keys[login], err
}

func (p *proofs) CramUser(ctx context.Context, login string) (User, CramKeys, error) {
	u, err := p.User(ctx, login)
	p.mu.Lock()
	defer p.mu.Unlock()
	return u, p.cram[login], err
}

func (p *proofs) LoginOfKey(_ context.Context, d KeyDigest) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if login, ok := p.pins[d]; ok {
		return login, nil
	}
	return "", ErrUnknownLogin
}

var testScramSecret = []byte("secret of the tests' salts, 32 oc")

func cheapKeys(t testing.TB, login, password string) ScramKeys {
	t.Helper()
	k, err := deriveScram(scramSalt(testScramSecret, login), minScramIterations, password)
	wantOK(t, err)
	return k
}

func newScramRig(t testing.TB, o Options) (*rig, *proofs) {
	t.Helper()
	p := &proofs{users: &users{m: map[string]User{}}, keys: map[string]ScramKeys{},
		cram: map[string]CramKeys{}, pins: map[KeyDigest]string{}}
	o.Sources = append([]Source{&storeSource{users: p, pepper: testPepper, argon: fakeArgon}}, o.Sources...)
	o.ScramSecret = testScramSecret
	r := newRig(t, o)
	p.users = r.users
	for _, login := range []string{"anna", "locked", "office"} {
		p.keys[login] = cheapKeys(t, login, "right")
	}
	for _, login := range []string{"printer", "lockedprinter"} {
		p.keys[login] = cheapKeys(t, login, "k3m9p-right")
	}
	r.users.put(User{Login: "plainonly", Hash: fakeChosen("right")})
	return r, p
}

// scramChecks are what a session makes of an Authenticator.
func (r *rig) scramChecks(client netip.Addr, bindings []Binding, why *error) Checks {
	fail := func(err error) mail.Reply {
		*why = err
		reply, _ := mail.ReplyFor(err)
		return reply
	}
	return Checks{Bindings: bindings,
		Scram: func(ctx context.Context, login string) (*ScramTrial, mail.Reply) {
			t, err := r.Scram(ctx, login, client)
			return t, fail(err)
		},
		ScramEnd: func(ctx context.Context, t *ScramTrial, right bool, proof string) (Identity, mail.Reply) {
			id, err := t.Finish(ctx, right, proof)
			return id, fail(err)
		},
		Done: func(Identity) mail.Reply { return replyOK },
	}
}

// talk runs an exchange with the library's client. change may alter each message of the client before it is sent.
func (r *rig) talk(t testing.TB, mechanism, login, password string, client netip.Addr, server, own []Binding,
	change func(step int, message string) string) (mail.Reply, error) {
	t.Helper()
	var why error
	x, err := NewExchange(mechanism, r.scramChecks(client, server, &why))
	wantOK(t, err)
	c, err := scram.SHA256.NewClient(login, password, "")
	wantOK(t, err)
	talk := c.NewConversation()
	if len(own) > 0 {
		talk = c.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingType(own[0].Type),
			Data: own[0].Data})
	}
	heard := ""
	for step := range 4 {
		message, err := "", error(nil)
		if step < 3 {
			if message, err = talk.Step(heard); err != nil {
				return mail.Reply{}, fmt.Errorf("the client refuses: %w", err)
			}
		}
		if change != nil {
			message = change(step, message)
		}
		challenge, reply := x.Next(t.Context(), []byte(message))
		if !reply.IsZero() {
			if _, own := x.Refusal(); own != nil {
				why = own
			}
			if reply.OK() && !talk.Valid() {
				t.Fatal("the server lets in whom it has not convinced")
			}
			return reply, why
		}
		heard = string(challenge)
	}
	t.Fatal("the exchange does not end")
	return mail.Reply{}, nil
}

var (
	exporter = []Binding{{"tls-exporter", []byte("exported keying material, 32 oct")}}
	foreign  = []Binding{{"tls-exporter", []byte("the other side's keying material")}}
	older    = append(exporter[:1:1], Binding{"tls-unique", []byte("finished")})
)

func TestScram(t *testing.T) {
	for _, c := range []struct {
		name, mechanism, login, password string
		client                           netip.Addr
		server, own                      []Binding
		code                             int
		why                              error
	}{
		{"right", ScramSHA256, "anna", "right", there, nil, nil, 235, nil},
		{"capitals", ScramSHA256, "ANNA", "right", there, nil, nil, 235, nil},
		{"wrong", ScramSHA256, "anna", "wrong", there, nil, nil, 535, ErrWrongPassword},
		{"unknown", ScramSHA256, "nobody", "right", there, nil, nil, 535, ErrUnknownLogin},
		{"locked", ScramSHA256, "locked", "right", there, nil, nil, 535, ErrLocked},
		{"no keys", ScramSHA256, "plainonly", "right", there, nil, nil, 535, ErrNoScramKeys},
		{"generated", ScramSHA256, "printer", "k3m9p-right", there, nil, nil, 235, nil},
		{"its network", ScramSHA256, "office", "right", here, nil, nil, 235, nil},
		{"another network", ScramSHA256, "office", "right", there, nil, nil, 535, ErrNetwork},
		{"bound", ScramPlus, "anna", "right", there, exporter, exporter, 235, nil},
		{"bound the older way", ScramPlus, "anna", "right", there, older, older[1:], 235, nil},
		{"bound elsewhere", ScramPlus, "anna", "right", there, exporter, foreign, 535, errBinding},
		{"a binding that is not there", ScramPlus, "anna", "right", there, exporter, older[1:], 535, errBinding},
		{"-PLUS without a binding", ScramPlus, "anna", "right", there, exporter, nil, 535, errBinding},
		{"a binding without -PLUS", ScramSHA256, "anna", "right", there, exporter, exporter, 535, errBinding},
		{"-PLUS where none is offered", ScramPlus, "anna", "right", there, nil, exporter, 535, errBinding},
		{"a client that cannot bind", ScramSHA256, "anna", "right", there, exporter, nil, 235, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := newScramRig(t, Options{})
			reply, why := r.talk(t, c.mechanism, c.login, c.password, c.client, c.server, c.own, nil)
			if reply.Code != c.code || c.code != 235 && !isError(why, c.why) {
				t.Errorf("%q, because of %v; want %d, %v", reply, why, c.code, c.why)
			}
		})
	}
}

// TestScramDowngrade: a client that could bind and was not offered -PLUS says so; if it was offered, somebody hides it.
func TestScramDowngrade(t *testing.T) {
	r, _ := newScramRig(t, Options{})
	could := func(step int, m string) string {
		if step == 0 {
			return "y" + strings.TrimPrefix(m, "n")
		}
		return strings.Replace(m, "c=biws", "c="+base64.StdEncoding.EncodeToString([]byte("y,,")), 1)
	}
	if reply, why := r.talk(t, ScramSHA256, "anna", "right", there, exporter, nil, could); reply.Code != 535 ||
		!isError(why, errDowngrade) {
		t.Errorf("%q: %v", reply, why)
	}
}

func TestScramAttacks(t *testing.T) {
	final := func(f func(string) string) func(int, string) string {
		return func(step int, m string) string {
			if step == 1 {
				return f(m)
			}
			return m
		}
	}
	first := func(m string) func(int, string) string {
		return func(step int, _ string) string { return m }
	}
	proof := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, c := range map[string]struct {
		change func(int, string) string
		code   int
	}{
		"an old answer":        {final(func(string) string { return "c=biws,r=oldnonceoldnonce,p=" + proof }), 535},
		"half a proof":         {final(func(m string) string { return m[:strings.Index(m, ",p=")] + ",p=AAAA" }), 535},
		"another header":       {final(func(m string) string { return "c=eSws" + m[len("c=biws"):] }), 535},
		"no proof":             {final(func(m string) string { return m[:strings.Index(m, ",p=")] }), 501},
		"nothing":              {final(func(string) string { return "" }), 501},
		"a long answer":        {final(func(m string) string { return m + strings.Repeat("A", 3000) }), 501},
		"no message":           {first("hello"), 501},
		"an empty message":     {first(""), 501},
		"no nonce":             {first("n,,n=anna,r="), 501},
		"no login":             {first("n,,n=,r=abcdefgh"), 535},
		"for somebody else":    {first("n,a=boss,n=anna,r=abcdefgh"), 535},
		"an extension":         {first("n,,m=1,n=anna,r=abcdefgh"), 501},
		"a broken escape":      {first("n,,n=an=na,r=abcdefgh"), 501},
		"an unknown binding":   {first("p=tls-nothing,,n=anna,r=abcdefgh"), 535},
		"a very long name":     {first("n,,n=" + long(2000) + ",r=abcdefgh,x=" + long(100)), 501},
		"a name over the most": {nil, 0},
	} {
		r, _ := newScramRig(t, Options{})
		if c.change == nil {
			reply, why := r.talk(t, ScramSHA256, long(300), "right", there, nil, nil, nil)
			if reply.Code != 535 || !isError(why, ErrUnknownLogin) && !isError(why, ErrMalformed) {
				t.Errorf("%s: %q: %v", name, reply, why)
			}
			continue
		}
		if reply, why := r.talk(t, ScramSHA256, "anna", "right", there, nil, nil, c.change); reply.Code != c.code {
			t.Errorf("%s: %q: %v", name, reply, why)
		}
	}
}

func isError(err, want error) bool {
	return err != nil && want != nil && strings.Contains(err.Error(), want.Error())
}

// TestScramTellsNothing: what a client hears before its proof, and the work it takes, is the same for a login with
// keys, one without, one that is locked and one that is not there; and a login's salt never changes.
func TestScramTellsNothing(t *testing.T) {
	r, p := newScramRig(t, Options{})
	var err error
	p.keys["anna"], err = DeriveScram(testScramSecret, "anna", "right") // at the real cost
	wantOK(t, err)
	heard := func(login string) (salt string, iterations string) {
		var why error
		x, _ := NewExchange(ScramSHA256, r.scramChecks(there, nil, &why))
		challenge, reply := x.Next(t.Context(), []byte("n,,n="+login+",r=abcdefgh"))
		if !reply.IsZero() {
			t.Fatal(reply)
		}
		f := strings.Split(string(challenge), ",")
		return f[1], f[2]
	}
	_, want := heard("anna")
	for _, login := range []string{"anna", "plainonly", "nobody"} {
		salt, n := heard(login)
		again, _ := heard(strings.ToUpper(login))
		if n != want || len(salt) != len("s=")+24 || salt != again {
			t.Errorf("%s: %s %s, then %s; want %s", login, salt, n, again, want)
		}
	}
	salt, _ := heard("soon")
	r.users.put(User{Login: "soon", Hash: fakeChosen("right")})
	if p.keys["soon"], err = DeriveScram(testScramSecret, "soon", "right"); err != nil {
		t.Fatal(err)
	}
	if after, _ := heard("soon"); after != salt {
		t.Errorf("the salt of a login shows that it was added: %s, %s", salt, after)
	}
	if r.hashes.Load() != 0 {
		t.Errorf("%d hashes", r.hashes.Load())
	}
}

// TestScramLocks: failures count as those of PLAIN, each of them, and a lock holds for both.
func TestScramLocks(t *testing.T) {
	lock := Lockout{Failures: 3, Window: minute, Duration: minute}
	for _, login := range []string{"anna", "nobody", "plainonly"} {
		r, _ := newScramRig(t, Options{Lockout: lock})
		for n := range 3 {
			if reply, why := r.talk(t, ScramSHA256, login, "wrong", there, nil, nil, nil); reply.Code != 535 ||
				isError(why, ErrLockedOut) {
				t.Fatalf("%s %d: %q %v", login, n, reply, why)
			}
		}
		if len(r.locks) != 1 {
			t.Errorf("%s: %d locks", login, len(r.locks))
		}
		if _, why := r.talk(t, ScramSHA256, login, "right", there, nil, nil, nil); !isError(why, ErrLockedOut) {
			t.Errorf("%s: %v", login, why)
		}
		wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
		if reply, why := r.talk(t, ScramSHA256, "anna", "right", here, nil, nil, nil); !reply.OK() {
			t.Errorf("%s locks others out: %v", login, why)
		}
		if reply, why := r.talk(t, ScramSHA256, "printer", "k3m9p-right", there, nil, nil, nil); !reply.OK() {
			t.Errorf("a generated password is locked out: %v", why)
		}
	}
}

// TestScramOutage: a source that cannot be asked is 454 and no failure.
func TestScramOutage(t *testing.T) {
	r, _ := newScramRig(t, Options{Lockout: Lockout{Failures: 1, Window: minute, Duration: minute}})
	r.users.fail(fmt.Errorf("disk"))
	for range 5 {
		if reply, _ := r.talk(t, ScramSHA256, "anna", "right", there, nil, nil, nil); reply.Code != 454 {
			t.Fatal(reply)
		}
	}
	r.users.fail(nil)
	if reply, why := r.talk(t, ScramSHA256, "anna", "right", there, nil, nil, nil); !reply.OK() {
		t.Error(why)
	}
}

// TestScramLockedMeanwhile: a login that is locked, or gets another password, between the two messages is refused.
func TestScramLockedMeanwhile(t *testing.T) {
	for name, change := range map[string]func(r *rig, p *proofs){
		"locked": func(r *rig, _ *proofs) {
			r.users.put(User{Login: "anna", Hash: fakeChosen("right"), Locked: true})
		},
		"password": func(_ *rig, p *proofs) { p.keys["anna"] = cheapKeys(t, "anna", "other") },
		"keys":     func(_ *rig, p *proofs) { delete(p.keys, "anna") },
	} {
		r, p := newScramRig(t, Options{})
		reply, why := r.talk(t, ScramSHA256, "anna", "right", there, nil, nil, func(step int, m string) string {
			if step == 1 {
				change(r, p)
			}
			return m
		})
		if reply.Code != 535 {
			t.Errorf("%s: %q %v", name, reply, why)
		}
	}
}

// TestScramParallel: hundreds of exchanges, changes and outages at once, for the race detector.
func TestScramParallel(t *testing.T) {
	r, p := newScramRig(t, Options{})
	var all sync.WaitGroup
	for n := range 200 {
		all.Go(func() {
			password := []string{"right", "wrong"}[n%2]
			reply, why := r.talk(t, ScramSHA256, "anna", password, from(n), nil, nil, nil)
			if reply.OK() != (password == "right") {
				t.Errorf("%s: %q %v", password, reply, why)
			}
		})
		if n%20 == 0 {
			all.Go(func() {
				r.SetSources([]Source{&storeSource{users: p, pepper: testPepper, argon: fakeArgon}})
				r.Forget("anna")
			})
		}
	}
	all.Wait()
}

func TestScramKeysEncode(t *testing.T) {
	k := cheapKeys(t, "anna", "right")
	back, err := DecodeScram(k.Encode())
	if err != nil || !back.Equal(k) || string(back.ServerKey) != string(k.ServerKey) || !back.Matches("right") ||
		back.Matches("wrong") {
		t.Error(err, back)
	}
	for _, bad := range []string{"", "4096,a", "4095,AAAA,AAAA,AAAA", "9999999,AAAA,AAAA,AAAA", "4096,,AAAA,AAAA",
		"x,AAAA,AAAA,AAAA", "4096,AAAA,AAAA,AAAA", string(k.Encode()) + "="} {
		if _, err := DecodeScram(Secret(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// FuzzScram: whatever comes, an exchange ends, nobody is let in without the password, and nothing panics.
func FuzzScram(f *testing.F) {
	r, _ := newScramRig(f, Options{})
	f.Add("n,,n=anna,r=abcdefgh", "c=biws,r=abcdefgh,p=AAAA", "", false)
	f.Add("p=tls-exporter,,n=anna,r=abcdefgh", "c=biws", "x", true)
	f.Add("y,a=x,n=a=2Cb,r=r", "", "", true)
	f.Fuzz(func(t *testing.T, first, final, last string, plus bool) {
		var why error
		m := ScramSHA256
		if plus {
			m = ScramPlus
		}
		x, _ := NewExchange(m, r.scramChecks(there, exporter, &why))
		for _, message := range []string{first, final, last, last} {
			challenge, reply := x.Next(context.Background(), []byte(message))
			if reply.OK() {
				t.Fatalf("%q %q lets in", first, final)
			}
			if !reply.IsZero() {
				return
			}
			if strings.ContainsAny(string(challenge), "\r\n") {
				t.Fatalf("challenge %q", challenge)
			}
		}
		t.Fatal("it does not end")
	})
}
