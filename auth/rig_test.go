package auth

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
)

var testPepper = []byte("pepper of the tests, 32 octets...")

// users is a UserStore in memory.
type users struct {
	mu  sync.Mutex
	m   map[string]User
	err error
}

func (u *users) User(_ context.Context, login string) (User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return User{}, u.err
	}
	user, ok := u.m[login]
	if !ok {
		return User{}, ErrUnknownLogin
	}
	return user, nil
}

func (u *users) put(user User) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.m[user.Login] = user
}

func (u *users) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

// rig is an Authenticator over a store in memory, with a hash that costs nothing and is counted.
type rig struct {
	only []string // sources; none: all
	*Authenticator
	users  *users
	hashes atomic.Int64
	during func() // called while hashing
	locks  []Lock
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	r := &rig{users: &users{m: map[string]User{}}}
	source := &storeSource{users: r.users, pepper: testPepper, argon: r.argon}
	if o.Sources == nil {
		o.Sources = []Source{source}
	}
	if o.HashParallel == 0 {
		o.HashParallel = 2
	}
	o.OnLock = func(l Lock) { r.locks = append(r.locks, l) }
	r.Authenticator = New(o)
	r.Authenticator.argon = r.argon
	r.users.put(User{Login: "anna", Hash: fakeChosen("right"), Senders: []string{"anna@example.com"}})
	r.users.put(User{Login: "locked", Hash: fakeChosen("right"), Locked: true, LockReason: "sent too much"})
	r.users.put(User{Login: "printer", Hash: HashGenerated(testPepper, "k3m9p-right"), Generated: true, Device: true})
	r.users.put(User{Login: "lockedprinter", Hash: HashGenerated(testPepper, "k3m9p-right"), Generated: true,
		Locked: true})
	r.users.put(User{Login: "office", Hash: fakeChosen("right"), Networks: prefixes("192.0.2.0/24", "2001:db8::/32")})
	return r
}

func (r *rig) argon(password, salt []byte, p params) []byte {
	r.hashes.Add(1)
	if r.during != nil {
		r.during()
	}
	return fakeArgon(password, salt, p)
}

func fakeArgon(password, salt []byte, p params) []byte {
	if p != chosen {
		panic("another cost than for real hashes")
	}
	sum := sha256.Sum256(append(binary.LittleEndian.AppendUint32(nil, uint32(len(salt))),
		append(slices.Clone(salt), password...)...))
	return sum[:]
}

func fakeChosen(password string) Secret {
	salt := []byte("sixteen octets..")
	return encodeChosen(chosen, salt, fakeArgon([]byte(password), salt, chosen))
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("198.51.100.7")
)

// from gives distinct places.
func from(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)})
}

func (r *rig) try(login, password string, client netip.Addr) error {
	_, err := r.AuthenticateBy(context.Background(), login, password, client, r.only...)
	return err
}

// is reports whether err carries the reply code outward and reason inward.
func wantRefusal(t *testing.T, err error, code int, reason error) {
	t.Helper()
	reply, ok := mail.ReplyFor(err)
	if !ok || reply.Code != code {
		t.Fatalf("reply = %q (error %v), want code %d", reply, err, code)
	}
	if reason != nil && !errors.Is(err, reason) {
		t.Fatalf("reason = %v, want %v", err, reason)
	}
}

func wantOK(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

const minute = time.Minute
