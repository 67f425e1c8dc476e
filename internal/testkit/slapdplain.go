package testkit

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// PlainSlapd is an OpenLDAP server as Debian's package makes it, with the directory dc=example,dc=com: no overlays, and
// TLS only once somebody configures it.
type PlainSlapd struct {
	t         testing.TB
	socket    string // ldapi://
	TLS, Open string // ldaps:// and ldap:// (which has StartTLS), once there is a certificate
	process   *Process
}

// slapdTemplate is what the package makes the configuration from.
const slapdTemplate = "/usr/share/slapd/slapd.init.ldif"

// plainEntries are all that the package puts into a directory.
const plainEntries = `dn: dc=example,dc=com
objectClass: top
objectClass: dcObject
objectClass: organization
o: example
dc: example
`

// NewPlainSlapd starts a server.
func NewPlainSlapd(t testing.TB) *PlainSlapd {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	Need(t, "slapd")
	template, err := os.ReadFile(slapdTemplate)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "slapd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf, db := filepath.Join(dir, "conf"), filepath.Join(dir, "db")
	for _, d := range []string{conf, db} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever runs the test is the server's root, who may configure it over its socket.
	text := strings.NewReplacer("@BACKEND@", "mdb", "@BACKENDOBJECTCLASS@", "olcMdbConfig", "@SUFFIX@", SlapdBase,
		"@PASSWORD@", SlapdRootPassword, "/var/lib/ldap", db, "/var/run/slapd", dir, "gidNumber=0+uidNumber=0",
		fmt.Sprintf("gidNumber=%d+uidNumber=%d", os.Getgid(), os.Getuid())).Replace(string(template))
	s := &PlainSlapd{t: t, socket: "ldapi://" + url.PathEscape(filepath.Join(dir, "ldapi")),
		TLS: fmt.Sprint("ldaps://127.0.0.1:", FreePort(t)), Open: fmt.Sprint("ldap://127.0.0.1:", FreePort(t))}
	s.run(text, "slapadd", "-F", conf, "-b", "cn=config")
	s.run(plainEntries, "slapadd", "-F", conf, "-b", SlapdBase)
	s.process = Start(t, nil, Need(t, "slapd"), "-F", conf, "-h", s.TLS+" "+s.Open+" "+s.socket, "-d", "stats")
	s.process.WaitLog("slapd starting")
	WaitListening(t, strings.TrimPrefix(s.Open, "ldap://"))
	return s
}

// Add is ldapadd as the administrator of the directory.
func (s *PlainSlapd) Add(ldif string) {
	s.t.Helper()
	s.run(ldif, "ldapadd", "-x", "-H", s.socket, "-D", "cn=admin,"+SlapdBase, "-w", SlapdRootPassword)
}

// Configure is ldapmodify of its configuration.
func (s *PlainSlapd) Configure(ldif string) {
	s.t.Helper()
	s.run(ldif, "ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", s.socket)
}

func (s *PlainSlapd) run(ldif, name string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(Need(s.t, name), args...)
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
