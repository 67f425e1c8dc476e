package ldap

import (
	"crypto/x509"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/auth"
	"postern/auth/authtest"
	"postern/internal/testkit"
)

// office is a directory with people, nested groups in a circle, and policies.
const office = testkit.SlapdEntries + `dn: uid=bert,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: bert
cn: Bert
sn: B
userPassword: right

dn: uid=gone,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: gone
cn: Gone
sn: G
userPassword: right

dn: uid=twin,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: twin
cn: Twin
sn: T
mail: both@example.com
userPassword: right

dn: uid=other,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: other
cn: Other
sn: T
mail: both@example.com
userPassword: right

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups

dn: cn=sales,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: sales
member: uid=anna,ou=people,dc=example,dc=com

dn: cn=staff,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: staff
member: cn=sales,ou=groups,dc=example,dc=com

dn: cn=everybody,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: everybody
member: cn=staff,ou=groups,dc=example,dc=com
member: cn=everybody,ou=groups,dc=example,dc=com

dn: cn=printing,ou=groups,dc=example,dc=com
objectClass: groupOfUniqueNames
cn: printing
uniqueMember: uid=anna,ou=people,dc=example,dc=com

dn: cn=unix,ou=groups,dc=example,dc=com
objectClass: posixGroup
cn: unix
gidNumber: 1000
memberUid: anna

dn: cn=others,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: others
member: uid=bert,ou=people,dc=example,dc=com
`

// circle makes the groups members of each other.
const circle = `dn: cn=sales,ou=groups,dc=example,dc=com
changetype: modify
add: member
member: cn=everybody,ou=groups,dc=example,dc=com
`

// odd gives Anna addresses that are patterns.
const odd = `dn: uid=anna,ou=people,dc=example,dc=com
changetype: modify
add: mail
mail: *@example.com
mail: @staff
`

const lock = `dn: uid=gone,ou=people,dc=example,dc=com
changetype: modify
replace: pwdAccountLockedTime
pwdAccountLockedTime: 000001010000Z
`

type rig struct {
	*testkit.Slapd
	ca *testkit.CA
}

func newRig(t *testing.T) *rig {
	ca := testkit.NewCA(t)
	r := &rig{testkit.NewSlapd(t, ca, office), ca}
	r.Tool("ldapmodify", circle)
	r.Tool("ldapmodify", lock)
	r.Tool("ldapmodify", odd)
	return r
}

func roots(ca *testkit.CA) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	return pool
}

func (r *rig) options(urls ...string) Options {
	return Options{Name: "office", URLs: urls, RootCAs: roots(r.ca), BaseDN: testkit.SlapdBase,
		BindDN: "cn=relay,dc=example,dc=com", BindPassword: "relay password", Timeout: 5 * time.Second}
}

func source(t *testing.T, o Options) *Source {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSlapd(t *testing.T) {
	r := newRig(t)
	fixture := authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "gone", LockedPassword: "right"}
	t.Run("LDAPS", func(t *testing.T) { authtest.RunSource(t, source(t, r.options(r.TLS)), fixture) })
	t.Run("StartTLS", func(t *testing.T) { authtest.RunSource(t, source(t, r.options(r.Open)), fixture) })
	t.Run("bind template", func(t *testing.T) {
		o := r.options(r.TLS)
		o.BindDN, o.BindPassword, o.BindTemplate = "", "", "uid={login},ou=people,dc=example,dc=com"
		f := fixture
		f.Merges = true
		authtest.RunSource(t, source(t, o), f)
	})
	t.Run("who it is", func(t *testing.T) { testIdentity(t, r) })
	t.Run("injection", func(t *testing.T) { testInjection(t, r) })
	t.Run("our own account", func(t *testing.T) { testOwnAccount(t, r) })
	t.Run("another CA", func(t *testing.T) {
		for _, url := range []string{r.TLS, r.Open} {
			o := r.options(url)
			o.RootCAs = roots(testkit.NewCA(t))
			_, err := source(t, o).Verify(t.Context(), "anna", "right")
			if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
				t.Errorf("%s: %v", url, err)
			}
		}
	})
}

func testIdentity(t *testing.T, r *rig) {
	for groups, want := range map[string][]string{
		GroupsNone: nil, "": {"everybody", "printing", "sales", "staff", "unix"}, GroupsMemberOf: {"sales"},
	} {
		o := r.options(r.TLS)
		o.Groups = groups
		s := source(t, o)
		wantID := auth.Identity{Login: "anna", Groups: want, Senders: []string{"anna@example.com"}}
		for _, login := range []string{"anna", "anna@example.com"} {
			id, err := s.Verify(t.Context(), login, "right")
			if err != nil || !reflect.DeepEqual(id, wantID) {
				t.Errorf("groups = %q: %+v, %v", groups, id, err)
			}
		}
		if id, err := s.Lookup(t.Context(), "anna"); err != nil || !reflect.DeepEqual(id, wantID) {
			t.Errorf("Lookup: %+v, %v", id, err)
		}
	}
	s := source(t, r.options(r.TLS))
	if _, err := s.Lookup(t.Context(), "gone"); !errors.Is(err, auth.ErrLocked) {
		t.Errorf("Lookup of a locked account: %v", err)
	}
	if _, err := s.Lookup(t.Context(), "nobody"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Errorf("Lookup of nobody: %v", err)
	}
	if _, err := s.Verify(t.Context(), "both@example.com", "right"); !errors.Is(err, auth.ErrWrongPassword) ||
		!strings.Contains(err.Error(), "more than one") {
		t.Errorf("two entries: %v", err)
	}
	o := r.options(r.TLS)
	o.BindDN, o.BindPassword, o.BindTemplate = "", "", "uid={login},ou=people,dc=example,dc=com"
	id, err := source(t, o).Verify(t.Context(), "anna", "right")
	if err != nil || len(id.Groups) != 5 || len(id.Senders) != 1 {
		t.Errorf("by template: %+v, %v", id, err)
	}
}

// testInjection: what a client says as its login never becomes a part of a filter or a name.
func testInjection(t *testing.T, r *rig) {
	search, o := source(t, r.options(r.TLS)), r.options(r.TLS)
	o.BindDN, o.BindPassword, o.BindTemplate = "", "", "uid={login},ou=people,dc=example,dc=com"
	template := source(t, o)
	for _, login := range []string{"*", "a*", "anna)(uid=*", "anna)(|(uid=*", "*)(objectClass=*", `anna\2a`, "anna\\",
		`\61nna`, "anna,ou=people", "anna+cn=Anna", "anna,ou=people,dc=example,dc=com", " anna", "#61", "anna;x",
		`"anna"`, "(anna)", "&", "|", "!(uid=x)", "uid=anna", "{login}", "b*rt"} {
		for _, s := range []*Source{search, template} {
			if id, err := s.Verify(t.Context(), login, "right"); !errors.Is(err, auth.ErrUnknownLogin) &&
				!errors.Is(err, auth.ErrWrongPassword) && id.Login != "anna" {
				t.Errorf("%q: %+v, %v", login, id, err)
			} else if err == nil && strings.TrimSpace(login) != "anna" {
				t.Errorf("%q was let in as %+v", login, id)
			}
		}
	}
	for _, s := range []*Source{search, template} {
		if _, err := s.Verify(t.Context(), "anna", ""); !errors.Is(err, auth.ErrWrongPassword) {
			t.Errorf("an empty password: %v", err)
		}
	}
}

// testOwnAccount: what is wrong with the relay's own account or base is trouble of the source, in words.
func testOwnAccount(t *testing.T, r *rig) {
	for want, change := range map[string]func(*Options){
		"does not accept bind_dn":               func(o *Options) { o.BindPassword = "wrong" },
		`there is no "dc=elsewhere,dc=example"`: func(o *Options) { o.BaseDN = "dc=elsewhere,dc=example" },
		"connection refused":                    func(o *Options) { o.URLs = []string{"ldaps://127.0.0.1:1"} },
	} {
		o := r.options(r.TLS)
		change(&o)
		s := source(t, o)
		_, err := s.Verify(t.Context(), "anna", "right")
		probe := s.Probe(t.Context())
		for _, err := range []error{err, probe} {
			if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, auth.ErrWrongPassword) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	if err := source(t, r.options(r.TLS)).Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestServersThatDie: one is killed in the middle of many logins, then the other.
func TestServersThatDie(t *testing.T) {
	ca := testkit.NewCA(t)
	first, second := &rig{testkit.NewSlapd(t, ca, office), ca}, &rig{testkit.NewSlapd(t, ca, office), ca}
	s := source(t, first.options(first.TLS, second.TLS))
	var wait sync.WaitGroup
	killed := make(chan struct{})
	for worker := range 16 {
		wait.Go(func() {
			for i := range 20 {
				if worker == 0 && i == 5 {
					first.Kill()
					close(killed)
				}
				if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
					t.Errorf("worker %d: %v", worker, err)
				}
			}
		})
	}
	wait.Wait()
	if n := s.pool.size(); n > maxConns {
		t.Errorf("%d connections", n)
	}
	second.Kill()
	if _, err := s.Verify(t.Context(), "anna", "wrong"); err == nil || errors.Is(err, auth.ErrWrongPassword) ||
		errors.Is(err, auth.ErrUnknownLogin) {
		t.Errorf("no server: %v", err)
	}
	first.Start()
	if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
		t.Errorf("started again: %v", err)
	}
	// A connection that was idle when its server died is replaced.
	first.Kill()
	first.Start()
	if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
		t.Errorf("restarted: %v", err)
	}
}

// TestRestartedServerStaysFirst: connections that were idle when it went away are not held against a server.
func TestRestartedServerStaysFirst(t *testing.T) {
	r := newRig(t)
	s := source(t, r.options(r.TLS, "ldaps://127.0.0.1:1"))
	for range 2 {
		if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
			t.Fatal(err)
		}
		r.Kill()
		r.Start()
	}
	if !s.pool.servers[0].failed.IsZero() {
		t.Error("it is asked last now")
	}
}
