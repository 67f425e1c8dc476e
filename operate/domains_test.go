package operate_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/store"
)

// TestOneLookAtDNSServesAll: what the doctor has seen of DNS, Domains shows, and its findings stay its own.
func TestOneLookAtDNSServesAll(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := config.Parse(filepath.Join(dir, "relay.toml"), []byte("data_dir = \""+dir+"\"\n[[policy]]\n"+
		"senders = [\"*@example.org\"]\n[[upstream]]\nname = \"office\"\nhost = \"127.0.0.1\"\n"))
	o := operate.New(operate.Options{Config: func() *config.Config { return c }, Store: s})
	world := dnstest.Start(t, dnstest.Zone("example.org"))
	look := operate.LookOptions{Resolver: &dnscheck.Resolver{Servers: []netip.AddrPort{world.Resolver},
		AuthorityPort: world.Port}}
	by := operate.Actor{Name: "anna", Channel: operate.Console, Role: operate.Admin}
	states, err := o.Domains.List(t.Context(), by)
	if err != nil || len(states) != 1 || states[0].Report != nil {
		t.Fatalf("%+v, %v", states, err)
	}
	found := o.Doctor.ExamOptions(look).More(c)[0].Look(t.Context())
	states, err = o.Domains.List(t.Context(), by)
	if err != nil || len(states) != 1 || states[0].Report == nil || len(found) == 0 {
		t.Fatalf("%+v, %+v, %v", states, found, err)
	}
	if r := states[0].Report; r.Domain != "example.org" || len(r.Findings) == 0 {
		t.Errorf("%+v", r)
	}
}
