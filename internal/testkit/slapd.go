package testkit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The names of a Slapd.
const (
	SlapdBase         = "dc=example,dc=com"
	SlapdRoot         = "cn=root,dc=example,dc=com"
	SlapdRootPassword = "root password"
)

// SlapdAnna is Anna ("right"), and the place where people are.
const SlapdAnna = `dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: uid=anna,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: anna
cn: Anna
sn: A
mail: anna@example.com
userPassword: right

`

// SlapdEntries are what a directory begins with: the relay's own account ("relay password"), a policy, and Anna.
const SlapdEntries = `dn: dc=example,dc=com
objectClass: domain
dc: example

dn: cn=policy,dc=example,dc=com
objectClass: person
objectClass: pwdPolicy
cn: policy
sn: policy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 1000

dn: cn=relay,dc=example,dc=com
objectClass: person
cn: relay
sn: relay
userPassword: relay password

` + SlapdAnna

// Slapd is an OpenLDAP server of a test's own, with memberOf and password policies.
type Slapd struct {
	t         testing.TB
	dir       string
	TLS, Open string // ldaps:// and ldap:// (which has StartTLS)
	caFile    string
	process   *Process
}

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
pidfile %[1]s/pid
TLSCertificateFile %[2]s
TLSCertificateKeyFile %[3]s
TLSCACertificateFile %[4]s
database mdb
suffix "` + SlapdBase + `"
rootdn "` + SlapdRoot + `"
rootpw "` + SlapdRootPassword + `"
directory %[1]s/db
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
overlay memberof
overlay ppolicy
ppolicy_default "cn=policy,` + SlapdBase + `"
ppolicy_use_lockout
`

// NewSlapd starts a server with these entries, added one after the other, with a certificate of ca. It may be stopped
// and started again.
func NewSlapd(t testing.TB, ca *CA, ldif string) *Slapd {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	Need(t, "slapd")
	Need(t, "ldapadd")
	s := &Slapd{t: t, dir: t.TempDir(), caFile: ca.File, TLS: fmt.Sprint("ldaps://127.0.0.1:", FreePort(t)),
		Open: fmt.Sprint("ldap://127.0.0.1:", FreePort(t))}
	cert := ca.Leaf(LeafOptions{})
	conf := fmt.Sprintf(slapdConf, s.dir, cert.CertFile, cert.KeyFile, ca.File)
	if err := os.WriteFile(filepath.Join(s.dir, "slapd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.Tool("ldapadd", ldif)
	return s
}

// Start starts a server that was stopped, and waits until it listens.
func (s *Slapd) Start() {
	s.t.Helper()
	s.process = Start(s.t, nil, Need(s.t, "slapd"), "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.TLS+" "+s.Open,
		"-d", "stats")
	s.process.WaitLog("slapd starting")
	WaitListening(s.t, strings.TrimPrefix(s.TLS, "ldaps://")) // it says so before it listens
}

// Kill ends it at once.
func (s *Slapd) Kill() { s.process.Kill() }

// Process is the server's, to stop it and let it go on.
func (s *Slapd) Process() *Process { return s.process }

// Log is what the server logged, each operation with its result.
func (s *Slapd) Log() string { return s.process.Log() }

// Tool runs ldapadd, ldapmodify or ldapdelete as the root of the directory.
func (s *Slapd) Tool(name, ldif string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(Need(s.t, name), append([]string{"-x", "-H", s.TLS, "-D", SlapdRoot, "-w", SlapdRootPassword},
		args...)...)
	cmd.Env = append(os.Environ(), "LDAPTLS_CACERT="+s.caFile)
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// WaitListening waits until something accepts connections at an address: of programs that do not say when they do.
func WaitListening(t testing.TB, address string) {
	t.Helper()
	eventually(t, "nothing listens at "+address, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// eventually looks until something is so: of what nobody tells.
func eventually(t testing.TB, never string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(startTime); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(never)
		}
	}
}
