package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/relay/config"
	"postern/relay/keyring"
	"postern/relay/outbound"
	"postern/relay/sign"
	"postern/relay/store"
)

// zone is DNS: TXT records by name.
type zone struct {
	texts  map[string]string
	silent bool
}

func (z *zone) DKIM(_ context.Context, domain, selector string) (keyring.Answer, error) {
	if z.silent {
		return keyring.Answer{}, errors.New("no answer")
	}
	var a keyring.Answer
	if text, ok := z.texts[selector+"._domainkey."+domain]; ok {
		a.Resolver = []string{text}
		a.Servers = []keyring.Server{{Name: "ns1.example.com", Texts: a.Resolver}}
	}
	return a, nil
}

func (z *zone) publish(t *testing.T, keys []Key) {
	for _, k := range keys {
		text, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		z.texts[k.RecordName()] = text
	}
}

// bench is a store with operations on it.
type bench struct {
	*testing.T
	dir   string
	conf  *config.Config
	store *store.Store
	dns   *zone
	keys  Keys
}

var admin = Actor{Name: "eva", Channel: Console, Role: Admin, Strong: true}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, dir: t.TempDir(), conf: &config.Config{}, dns: &zone{texts: map[string]string{}}}
	b.store = b.open()
	b.keys = b.operations(b.store)
	return b
}

func (b *bench) open() *store.Store {
	s, err := store.Open(b.Context(), store.Options{Dir: b.dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func (b *bench) operations(s *store.Store) Keys {
	return New(Options{Config: func() *config.Config { return b.conf }, Store: s, DNS: b.dns}).Keys
}

// stages lists the keys of the store, and those that sign by what the daemon reads.
func (b *bench) stages() (all, signing string) {
	b.Helper()
	keys, err := b.keys.List(b.Context(), admin)
	if err != nil {
		b.Fatal(err)
	}
	var list []string
	for _, k := range keys {
		list = append(list, k.Selector+"="+string(k.State.Stage))
	}
	signs, err := outbound.Keys(b.Context(), b.conf.DKIM, b.store)
	if err != nil {
		b.Fatal(err)
	}
	var names []string
	for _, k := range sign.NewRing(signs).For("example.com") {
		names = append(names, k.Selector)
	}
	return strings.Join(list, " "), strings.Join(names, " ")
}

func (b *bench) expect(all, signing string) {
	b.Helper()
	if gotAll, gotSigning := b.stages(); gotAll != all || gotSigning != signing {
		b.Errorf("%s, and %s sign; want %s, and %s", gotAll, gotSigning, all, signing)
	}
}

func (b *bench) check() {
	b.Helper()
	if _, err := b.keys.Check(b.Context(), admin, ""); err != nil {
		b.Fatal(err)
	}
}

// age makes all that was found so much older.
func (b *bench) age(by time.Duration) {
	b.Helper()
	if err := b.store.ChangeKeys(b.Context(), func(keys []store.Key) error {
		for i := range keys {
			k := &keys[i]
			k.Since, k.Looked, k.FoundSince, k.FoundLast = k.Since.Add(-by), k.Looked.Add(-by), k.FoundSince.Add(-by),
				k.FoundLast.Add(-by)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) refused(err error, kind Kind, words string) {
	b.Helper()
	if got, known := KindOf(err); !known || got != kind || !strings.Contains(err.Error(), words) {
		b.Errorf("%v, want %q", err, words)
	}
}

// The life of keys, from the first to the removal of what they replaced.
func TestKeyLife(t *testing.T) {
	b := newBench(t)
	ctx, both := t.Context(), []string{sign.Ed25519, sign.RSA2048}
	_, err := b.keys.Rotate(ctx, admin, "example.com", nil)
	b.refused(err, NotFound, "postern dkim add example.com")
	old, err := b.keys.Add(ctx, admin, "example.com", "a", both)
	if err != nil {
		t.Fatal(err)
	}
	b.expect("a-e=new a-r=new", "")
	b.check()
	b.expect("a-e=new a-r=new", "")
	_, err = b.keys.Rotate(ctx, admin, "example.com", nil)
	b.refused(err, Conflict, "no key of example.com signs")
	b.dns.publish(t, old)
	b.check()
	b.expect("a-e=signing a-r=signing", "a-r a-e")

	young, err := b.keys.Rotate(ctx, admin, "example.com", nil)
	if err != nil || len(young) != 2 {
		t.Fatal(young, err)
	}
	r, e := usualSelector(sign.RSA2048, time.Now()), usualSelector(sign.Ed25519, time.Now())
	_, err = b.keys.Rotate(ctx, admin, "example.com", nil)
	b.refused(err, Conflict, "waits to sign for example.com already")
	b.dns.publish(t, young[:1])
	b.check()
	b.age(2 * time.Hour)
	b.check()
	_, signing := b.stages()
	if signing != "a-r a-e" {
		t.Errorf("%s sign while a record is missing", signing)
	}
	b.dns.publish(t, young)
	b.check()
	b.expect("a-e=signing a-r=signing "+e+"=published "+r+"=published", "a-r a-e")
	b.age(keyring.Stable)
	b.dns.silent = true
	b.check()
	b.expect("a-e=signing a-r=signing "+e+"=published "+r+"=published", "a-r a-e")
	b.dns.silent = false
	b.check()
	b.expect("a-e=retiring a-r=retiring "+e+"=signing "+r+"=signing", r+" "+e)

	b.refused(b.keys.Remove(ctx, admin, "example.com", "a-r", false), Conflict, "must stay in DNS until")
	b.refused(b.keys.Retire(ctx, admin, "example.com", "a-r", false), Conflict, "retires already")
	b.age(keyring.RetireFor)
	if keys, _ := b.keys.List(ctx, admin); !keys[0].Over || !strings.HasPrefix(keys[0].Next, "delete the record") {
		t.Errorf("%+v", keys[0])
	}
	for _, name := range []string{"a-r", "a-e"} {
		if err := b.keys.Remove(ctx, admin, "example.com", name, false); err != nil {
			t.Error(err)
		}
	}
	third, err := b.keys.Rotate(ctx, admin, "example.com", nil)
	if err != nil || third[0].Selector != r+"-2" && third[0].Selector != e+"-2" {
		t.Errorf("a taken selector: %v, %v", third, err)
	}
}

func TestAddNow(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a", "b"} {
		if _, err := b.keys.AddNow(t.Context(), admin, "example.com", name, []string{sign.Ed25519}); err != nil {
			t.Fatal(err)
		}
	}
	b.expect("a=retiring b=signing", "b")
	_, err := b.keys.AddNow(t.Context(), admin, "example.com", "a", []string{sign.Ed25519})
	b.refused(err, Conflict, "has a key with selector a already")
	_, err = b.keys.Add(t.Context(), admin, "example.com", "c", []string{"rsa-512"})
	b.refused(err, Invalid, "rsa-512")
}

// What would leave mail unsigned has to be insisted on.
func TestRetireAndRemove(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if _, err := b.keys.AddNow(ctx, admin, "example.com", "s", []string{sign.RSA2048, sign.Ed25519}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.keys.Add(ctx, admin, "example.com", "t", []string{sign.Ed25519}); err != nil {
		t.Fatal(err)
	}
	remove := func(selector string, force bool) error {
		return b.keys.Remove(ctx, admin, "example.com", selector, force)
	}
	retire := func(selector string, force bool) error {
		return b.keys.Retire(ctx, admin, "example.com", selector, force)
	}
	b.refused(retire("s-r", false), Conflict, "postern dkim rotate example.com, or insist (force)")
	b.refused(remove("s-r", false), Conflict, "replace it first: postern dkim rotate")
	b.refused(remove("s-e", false), Conflict, "retire it first")
	b.refused(retire("t", false), Conflict, "never signed")
	b.refused(retire("u", false), NotFound, "no key u of example.com")
	b.refused(remove("u", true), NotFound, "no key u")
	b.refused(b.keys.Retire(ctx, admin, "no domain", "u", false), Invalid, "no domain")
	b.expect("s-e=signing s-r=signing t=new", "s-r s-e")
	for _, err := range []error{retire("s-e", false), remove("t", false), retire("s-r", true), remove("s-r", true)} {
		if err != nil {
			t.Error(err)
		}
	}
	b.expect("s-e=retiring", "")
	weak := admin
	weak.Strong = false
	if err := b.keys.Remove(ctx, weak, "example.com", "s-e", true); !errors.Is(err, ErrStrong) {
		t.Errorf("removed without the second factor: %v", err)
	}
}

// Of two processes that rotate at once one has done it. Each looks for itself, and the keys are switched once.
func TestRotateInTwoProcesses(t *testing.T) {
	b := newBench(t)
	other := b.operations(b.open())
	made, err := b.keys.AddNow(t.Context(), admin, "example.com", "a", []string{sign.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	b.dns.publish(t, made)
	var all sync.WaitGroup
	var mu sync.Mutex
	var won []Key
	refused := 0
	for i := range 6 {
		all.Go(func() {
			keys, err := []Keys{b.keys, other}[i%2].Rotate(t.Context(), admin, "example.com", nil)
			mu.Lock()
			defer mu.Unlock()
			if kind, known := KindOf(err); known && kind == Conflict {
				refused++
			}
			won = append(won, keys...)
		})
	}
	all.Wait()
	if len(won) != 1 || refused != 5 {
		t.Fatalf("%d rotated, %d refused", len(won), refused)
	}
	b.dns.publish(t, won)
	b.check()
	b.age(keyring.Stable)
	for i := range 6 {
		all.Go(func() {
			if _, err := []Keys{b.keys, other}[i%2].Check(t.Context(), admin, "example.com"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b.expect("a=retiring "+won[0].Selector+"=signing", won[0].Selector)
}

// A key of relay.toml signs before one of the store, which says so.
func TestKeysOfTheConfiguration(t *testing.T) {
	b := newBench(t)
	_, pem, err := sign.Generate(sign.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.dir, "key.pem")
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	b.conf.DKIM = []config.DKIM{{Domain: "example.com", Selector: "file", KeyFile: file}}
	made, err := b.keys.Rotate(t.Context(), admin, "example.com", nil)
	if err != nil || len(made) != 1 || made[0].Algorithm() != sign.Ed25519 {
		t.Fatal(made, err)
	}
	b.dns.publish(t, made)
	keys, err := b.keys.Check(t.Context(), admin, "example.com")
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	if keys[0].Found() != keyring.Absent || !strings.HasPrefix(keys[0].Next, "publish its record") {
		t.Errorf("of the file: %+v", keys[0])
	}
	if again, err := b.operations(b.open()).List(t.Context(), admin); err != nil || len(again) != 2 ||
		again[0].Found() != keyring.Absent || again[0].Next != keys[0].Next || again[0].State.Looked.IsZero() {
		t.Errorf("another process, without looking: %+v, %v", again, err)
	}
	if !strings.Contains(keys[1].Next, "take that [[dkim]] out") {
		t.Errorf("of the store: %+v", keys[1])
	}
	b.expect("file=signing "+made[0].Selector+"=signing", "file")
	b.conf.DKIM = nil
	b.expect(made[0].Selector+"=signing", made[0].Selector)
}

func TestCheckWithoutDNS(t *testing.T) {
	b := newBench(t)
	b.keys.DNS = nil
	if _, err := b.keys.Check(t.Context(), admin, ""); !errors.Is(err, ErrNoDNS) {
		t.Error(err)
	}
	b.dns.silent = true
	b.keys.DNS = b.dns
	if _, err := b.keys.Add(t.Context(), admin, "example.com", "a", []string{sign.Ed25519}); err != nil {
		t.Fatal(err)
	}
	keys, err := b.keys.Check(t.Context(), admin, "")
	if err != nil || keys[0].Found() != keyring.Unknown || keys[0].State.Stage != keyring.New {
		t.Errorf("%+v, %v", keys, err)
	}
}

// A domain is taken as people write it, and has keys as DNS has it.
func TestKeysOfADomainWithUmlauts(t *testing.T) {
	b := newBench(t)
	made, err := b.keys.Add(t.Context(), admin, "Müller.example", "s", []string{sign.Ed25519})
	if err != nil || made[0].Domain != "xn--mller-kva.example" {
		t.Fatalf("%+v, %v", made, err)
	}
	b.dns.publish(t, made)
	keys, err := b.keys.Check(t.Context(), admin, "müller.example")
	if err != nil || len(keys) != 1 || keys[0].State.Stage != keyring.Signing {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := b.keys.Rotate(t.Context(), admin, "xn--mller-kva.example", nil); err != nil {
		t.Error(err)
	}
	for _, err := range []error{b.keys.Retire(t.Context(), admin, "müller.example", "s", true),
		b.keys.Remove(t.Context(), admin, "MÜLLER.example", "s", true)} {
		if err != nil {
			t.Error(err)
		}
	}
}
