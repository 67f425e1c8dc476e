package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postern/relay/alert"
	"postern/relay/keyring"
	"postern/relay/sign"
	relaystore "postern/relay/store"
)

// records is DNS: what is published, by name.
type records struct {
	mu    sync.Mutex
	texts map[string]string
}

func (r *records) DKIM(_ context.Context, domain, selector string) (keyring.Answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text, ok := r.texts[selector+"._domainkey."+domain]; ok {
		return keyring.Answer{Resolver: []string{text}}, nil
	}
	return keyring.Answer{}, nil
}

func (r *records) publish(name, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[name] = text
}

// keep stores a key of example.com and returns its record.
func (r *rig) keep(s *relaystore.Store, selector string, stage keyring.Stage, age time.Duration) (record string) {
	r.t.Helper()
	signer, pem, err := sign.Generate(sign.Ed25519)
	if err != nil {
		r.t.Fatal(err)
	}
	if record, err = (sign.Key{Domain: "example.com", Selector: selector, Signer: signer}).Record(); err != nil {
		r.t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := s.AddKeys(r.t.Context(), relaystore.Key{Domain: "example.com", Selector: selector,
		Algorithm: sign.Ed25519, PEM: string(pem), Created: at,
		State: keyring.State{Stage: stage, Since: at}}); err != nil {
		r.t.Fatal(err)
	}
	return record
}

// signedBy sends a message and has go-msgauth say whose signatures it leaves with, by what is published.
func (r *rig) signedBy(published map[string]string) string {
	r.t.Helper()
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		r.t.Fatal(err)
	}
	all := r.provider.wait(1)
	message := all[len(all)-1].data
	asked := ""
	found, err := dkim.VerifyWithOptions(bytes.NewReader([]byte(message)), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			asked, _, _ = strings.Cut(name, ".")
			if text, ok := published[name]; ok {
				return []string{text}, nil
			}
			return nil, errors.New(name + " is not published")
		}})
	if err != nil || len(found) > 1 || len(found) == 1 && found[0].Err != nil {
		r.t.Fatalf("%+v, %v\n%s", found, err, message)
	}
	return asked
}

func (r *rig) ringHas(selector string) func() bool {
	return func() bool {
		keys := r.server.state.Load().routes.Ring.For("example.com")
		return len(keys) == 1 && keys[0].Selector == selector
	}
}

// The daemon itself sees a first key in DNS and signs with it. Keys in other stages sign nothing.
func TestDaemonSignsWhatItSees(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	r.close()
	dns := &records{texts: map[string]string{}}
	r.dns = dns
	r.start()
	s := r.store()
	text := r.keep(s, "first", keyring.New, 0)
	r.keep(s, "lost", keyring.Published, 2*time.Hour) // superseded, and not published any more
	if by := r.signedBy(nil); by != "" {
		t.Errorf("signed by %s, which nobody sees", by)
	}
	dns.publish("first._domainkey.example.com", text)
	r.eventually("the first key in force", func() bool {
		// A look may have come before; the next one would come after five minutes.
		err := s.ChangeKeys(t.Context(), func(keys []relaystore.Key) error {
			for i := range keys {
				keys[i].Looked = time.Time{}
			}
			return nil
		})
		return err == nil && r.ringHas("first")()
	})
	if by := r.signedBy(map[string]string{"first._domainkey.example.com": text}); by != "first" {
		t.Errorf("signed by %q", by)
	}
}

// While another process switches keys and the configuration is loaded again and again, each message leaves with one
// signature that verifies, and after the switch with that of the new key.
func TestSwitchOfKeysWhileReloading(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	s := r.store()
	published := map[string]string{}
	published["old._domainkey.example.com"] = r.keep(s, "old", keyring.Signing, 2*time.Hour)
	published["young._domainkey.example.com"] = r.keep(s, "young", keyring.New, time.Hour)
	r.eventually("the old key in force", r.ringHas("old"))
	if by := r.signedBy(published); by != "old" {
		t.Errorf("signed by %q", by)
	}
	stop, reloads := make(chan struct{}), sync.WaitGroup{}
	reloads.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := r.server.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	see := func(now time.Time) {
		err := s.ChangeKeys(t.Context(), func(keys []relaystore.Key) error {
			ring := keyring.Ring{Keys: keys}
			ring.Step(now, []keyring.Sighting{{Key: keys[1], Found: keyring.Seen}})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	see(time.Now())
	see(time.Now().Add(keyring.Stable))
	for range 5 {
		if by := r.signedBy(published); by != "old" && by != "young" {
			t.Errorf("signed by %q", by)
		}
	}
	r.eventually("the new key in force", r.ringHas("young"))
	close(stop)
	reloads.Wait()
	delete(published, "old._domainkey.example.com")
	r.eventually("the new key in force", r.ringHas("young"))
	if by := r.signedBy(published); by != "young" {
		t.Errorf("signed by %q", by)
	}
}

// The hook hears of a key whose record may be deleted, and of the end when the key was removed.
func TestARetiredKeyIsTold(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block())
	s := r.store()
	r.keep(s, "old", keyring.Signing, 100*24*time.Hour)
	err := s.ChangeKeys(t.Context(), func(keys []relaystore.Key) error {
		keys[0].Stage, keys[0].Since = keyring.Retiring, time.Now().Add(-keyring.RetireFor)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		if err := r.server.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	d := hook.wait(r, alert.DKIMKey, "removable example.com", 1)
	if d.Resolved || !strings.Contains(d.Summary, "postern dkim remove") ||
		d.Details["keys"] != "old._domainkey.example.com" || d.Details["what"] != keyring.Removable {
		t.Errorf("%+v", d)
	}
	if _, err := s.RemoveKey(t.Context(), "example.com", "old", func(relaystore.Key, []relaystore.Key) error {
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	look()
	if d = hook.wait(r, alert.DKIMKey, "removable example.com", 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
}

// The daemon looks for the record of a key of relay.toml too, and the hook hears when it is not there.
func TestAConfiguredKeyIsWatched(t *testing.T) {
	t.Parallel()
	_, pem, err := sign.Generate(sign.Ed25519)
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := errors.Join(err, os.WriteFile(file, pem, 0o600)); err != nil {
		t.Fatal(err)
	}
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block()+
		fmt.Sprintf("[[dkim]]\ndomain = \"example.com\"\nselector = \"file\"\nkey_file = %q\n", file))
	r.close()
	r.dns = &records{texts: map[string]string{}}
	r.start()
	s := r.store()
	r.eventually("a look for the key", func() bool {
		known, err := s.ConfiguredKeys(t.Context())
		return err == nil && len(known) == 1 && known[0].Found == keyring.Absent
	})
	if err := s.ChangeConfiguredKeys(t.Context(), func(known []keyring.Key) []keyring.Key {
		known[0].FoundSince = known[0].FoundSince.Add(-time.Hour) // looked for all the time, in vain
		return known
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := hook.wait(r, alert.DKIMKey, "broken example.com", 1)
	if d.Resolved || d.Details["keys"] != "file._domainkey.example.com" {
		t.Errorf("%+v", d)
	}
}
