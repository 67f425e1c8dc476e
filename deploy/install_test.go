//go:build unix

package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testkit"
)

// machine is a system to install on: a directory with what maintainer scripts call, and the package managers' own
// records. Scripts run in it by chroot.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	testkit.NeedRoot(t)
	m := &machine{t, t.TempDir()}
	// Below a directory that only root enters, the service could not reach its own.
	for dir := m.root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "dev", "tmp", "var/lib/misc",
		"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/rpm"} {
		if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+dir, m.path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"sh", "install", "chgrp", "rm", "rmdir", "find", "grep", "setpriv", "timeout",
		"systemctl", "systemd-sysusers"} {
		m.copyProgram(testkit.Need(t, tool))
	}
	m.copyLibraries(binaryOf(t))
	m.has("systemd 252", "libc6 2.36", "libssl3t64 3.5.1\nProvides: libssl3 (= 3.5.1)") // the last as in Debian 13
	return m
}

// has writes dpkg's records of installed packages: name and version of each, and further fields.
func (m *machine) has(packages ...string) {
	m.t.Helper()
	var status strings.Builder
	for _, p := range packages {
		name, rest, _ := strings.Cut(p, " ")
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nArchitecture: %s\nMaintainer: Nobody "+
			"<nobody@example.com>\nDescription: what the package needs\nVersion: %s\n\n", name, runtime.GOARCH, rest)
	}
	m.write("/var/lib/dpkg/status", status.String(), 0o644)
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// copyProgram copies a program with its libraries.
func (m *machine) copyProgram(path string) {
	m.t.Helper()
	m.copyLibraries(path, path)
}

// copyLibraries copies the libraries of a program, and other files.
func (m *machine) copyLibraries(path string, others ...string) {
	m.t.Helper()
	files := append([]string{"-L", "--parents"}, others...)
	for _, word := range strings.Fields(run(m.t, "ldd", path)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	run(m.t, "cp", append(files, m.root)...)
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(m.path(name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) exists(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

// boot has systemd run, as far as scripts can tell. What they ask of it is kept.
func (m *machine) boot() {
	m.t.Helper()
	if err := os.MkdirAll(m.path("/run/systemd/system"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"systemctl", "deb-systemd-invoke"} {
		os.Remove(m.path("/usr/bin/" + name))
		m.write("/usr/bin/"+name, "#!/bin/sh\n[ \"$2\" != is-active ] || exit 3\n"+
			"echo \"${0##*/} $*\" >>/asked\n", 0o755)
	}
}

// asked returns what scripts asked of systemd since the last call.
func (m *machine) asked() []string {
	m.t.Helper()
	text, err := os.ReadFile(m.path("/asked"))
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	os.Remove(m.path("/asked"))
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func (m *machine) expectAsked(want ...string) {
	m.t.Helper()
	if got := m.asked(); !slices.Equal(got, want) {
		m.t.Errorf("systemd was asked for %q, want %q", got, want)
	}
}

// belongs checks owner, group and mode of a file. The name of an owner is one of the machine's.
func (m *machine) belongs(name, user, group string, mode os.FileMode) {
	m.t.Helper()
	info, err := os.Stat(m.path(name))
	if err != nil {
		m.t.Error(err)
		return
	}
	is := info.Sys().(*syscall.Stat_t)
	uid, gid := m.id("passwd", user), m.id("group", group)
	if fmt.Sprint(is.Uid) != uid || fmt.Sprint(is.Gid) != gid || info.Mode().Perm() != mode {
		m.t.Errorf("%s belongs to %d:%d, mode %o; want %s:%s, %o", name, is.Uid, is.Gid, info.Mode().Perm(), uid, gid,
			mode)
	}
}

// id looks a name up in passwd or group.
func (m *machine) id(file, name string) string {
	m.t.Helper()
	if name == "root" {
		return "0"
	}
	for line := range strings.Lines(run(m.t, "cat", m.path("/etc/"+file))) {
		if fields := strings.Split(line, ":"); fields[0] == name {
			return fields[2]
		}
	}
	m.t.Fatalf("%s has no %s", file, name)
	return ""
}

// postern runs the installed program as root.
func (m *machine) postern(args ...string) string {
	m.t.Helper()
	return run(m.t, "chroot", append([]string{m.root, "/usr/bin/postern"}, args...)...)
}

// serve runs it as the unit does: as its user, in what the package made.
func (m *machine) serve() *testkit.Process {
	m.t.Helper()
	user := m.id("passwd", "postern") + ":" + m.id("group", "postern")
	return testkit.Start(m.t, nil, testkit.Need(m.t, "chroot"), "--userspec="+user, "--groups=", m.root,
		"/usr/bin/postern", "serve", "--config", "/etc/postern/relay.toml")
}

// configure writes what setup would, with a provider that is down.
func (m *machine) configure() (address string) {
	m.t.Helper()
	address = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(m.t))
	m.write("/etc/postern/relay.toml", fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "/var/lib/postern"

[admin]
address = ""

[[listener]]
address = %q

[[upstream]]
name = "provider"
host = "127.0.0.1"
port = %d
tls = "none"
`, address, testkit.FreePort(m.t)), 0o640)
	run(m.t, "chgrp", m.id("group", "postern"), m.path("/etc/postern/relay.toml"))
	return address
}

// signs has the program make keys, each of which signs a first message, by the OpenSSL of the machine.
func (m *machine) signs() {
	m.t.Helper()
	if said := m.postern("version"); !strings.Contains(said, "\nsigner: openssl 3.") {
		m.t.Errorf("what signs here? %s", said)
	}
	if said := m.postern("dkim", "add", "example.com"); !strings.Contains(said, "v=DKIM1; k=rsa; p=") {
		m.t.Errorf("keys: %s", said)
	}
}

// leaveMail has a message wait in the queue, taken by the daemon as installed.
func (m *machine) leaveMail() {
	m.t.Helper()
	address := m.configure()
	_, password, _ := strings.Cut(m.postern("user", "add", "anna@example.com", "--json"), `"password": "`)
	password, _, _ = strings.Cut(password, `"`)
	p := m.serve() // as the service, on what root has just made
	p.WaitLog(`msg=ready .*signer="openssl 3\.`)
	sent := testkit.Swaks(m.t, testkit.Submission{Server: address, TLS: testkit.StartTLS, Login: "anna@example.com",
		Password: password, From: "anna@example.com", To: []string{"bob@example.net"},
		Message: []byte("From: anna@example.com\r\nSubject: kept\r\n\r\nBody\r\n")})
	if !sent.OK {
		m.t.Fatal(sent.Text)
	}
	p.Stop()
	m.signs()
}

// dpkg is Debian's own, on the records of the machine.
func (m *machine) dpkg(args ...string) string {
	m.t.Helper()
	return run(m.t, testkit.Need(m.t, "dpkg"), append([]string{"--root=" + m.root, "--log=/dev/null"}, args...)...)
}

// refusesWithoutOpenSSL: where the binary would not start, the package is not set up.
func (m *machine) refusesWithoutOpenSSL(deb string) {
	m.t.Helper()
	records := run(m.t, "cat", m.path("/var/lib/dpkg/status"))
	m.has("systemd 252", "libc6 2.31", "libssl1.1 1.1.1w")
	out, err := command(testkit.Need(m.t, "dpkg"), "--root="+m.root, "--log=/dev/null", "-i", deb).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "depends on libssl3 (>= 3.0)") ||
		!strings.Contains(string(out), "depends on libc6 (>= 2.34)") {
		m.t.Errorf("%v: %s", err, out)
	}
	m.dpkg("--purge", "--force-remove-reinstreq", "postern")
	m.write("/var/lib/dpkg/status", records, 0o644)
}

func TestDeb(t *testing.T) {
	m := newMachine(t)
	first, next := packageOf(t, "1", "deb"), packageOf(t, "2", "deb")
	m.refusesWithoutOpenSSL(first)
	if said := m.dpkg("-i", first); !strings.Contains(said, "Run 'postern setup'") {
		t.Errorf("nobody is told what to do: %s", said)
	}
	m.belongs("/var/lib/postern", "postern", "postern", 0o700)
	m.belongs("/etc/postern", "root", "postern", 0o750)
	if !m.exists("/etc/systemd/system/multi-user.target.wants/postern.service") {
		t.Error("it will not start with the machine")
	}
	m.boot()
	m.dpkg("-i", first)
	m.expectAsked("systemctl daemon-reload") // an unconfigured service is not started
	m.leaveMail()
	config := run(t, "cat", m.path("/etc/postern/relay.toml"))

	if said := m.dpkg("-i", next); !strings.Contains(said, "\nNothing in relay.toml has changed since 1.0.0.\n") {
		t.Errorf("nobody is told what has changed: %s", said)
	}
	m.expectAsked("systemctl daemon-reload", "deb-systemd-invoke restart postern.service")
	if now := run(t, "cat", m.path("/etc/postern/relay.toml")); now != config {
		t.Errorf("the upgrade changed the configuration:\n%s", now)
	}
	if list := m.postern("queue", "list"); !strings.Contains(list, "bob@example.net") {
		t.Errorf("the upgrade lost mail: %s", list)
	}
	m.write("/etc/postern/relay.toml", "hostnam = 1\n", 0o640)
	if said := m.dpkg("-i", next); !strings.Contains(said, "refuses /etc/postern/relay.toml") {
		t.Errorf("nobody is told that it is not restarted: %s", said)
	}
	m.expectAsked("systemctl daemon-reload")
	m.write("/etc/postern/relay.toml", config, 0o640)

	m.dpkg("--remove", "postern")
	m.expectAsked("deb-systemd-invoke stop postern.service", "systemctl daemon-reload")
	if m.exists("/usr/bin/postern") || !m.exists("/etc/postern/relay.toml") {
		t.Error("removing leaves the program, or takes the configuration")
	}
	if said := m.dpkg("--purge", "postern"); !strings.Contains(said, "mail may wait") {
		t.Errorf("nobody is told that the queue stays: %s", said)
	}
	purgeWithoutMail(t, m, next)
}

// purgeWithoutMail installs again, empties the queue that the purge has kept, and purges for good.
func purgeWithoutMail(t *testing.T, m *machine, deb string) {
	m.asked()
	m.dpkg("-i", deb)
	if asked := m.asked(); !slices.Contains(asked, "deb-systemd-invoke restart postern.service") {
		t.Errorf("it goes on with what was kept, but is not started: %q", asked)
	}
	if list := m.postern("queue", "list"); !strings.Contains(list, "bob@example.net") {
		t.Fatalf("the purge lost mail: %s", list)
	}
	m.postern("queue", "delete", "--all")
	m.dpkg("--remove", "postern")
	m.write("/var/lib/postern/later", "somebody uses it without the package", 0o600)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(m.path("/var/lib/postern/later"), later, later); err != nil {
		t.Fatal(err)
	}
	if said := m.dpkg("--purge", "postern"); !strings.Contains(said, "mail may wait") {
		t.Errorf("what is used since is purged: %s", said)
	}
	os.Remove(m.path("/var/lib/postern/later"))
	m.dpkg("-i", deb)
	m.dpkg("--purge", "postern")
	for _, left := range []string{"/var/lib/postern", "/etc/postern", "/var/lib/misc/postern-queue-is-empty",
		"/etc/systemd/system/multi-user.target.wants/postern.service"} {
		if m.exists(left) {
			t.Errorf("%s is left", left)
		}
	}
}

// dnf is Fedora's own, on the records of the machine, with no repository.
func (m *machine) dnf(args ...string) string {
	m.t.Helper()
	return run(m.t, testkit.Need(m.t, "dnf"), m.dnfArgs(args...)...)
}

func (m *machine) dnfArgs(args ...string) []string {
	return append([]string{"-y", "--installroot=" + m.root, "--releasever=9", "--disablerepo=*", "--noplugins",
		"--setopt=reposdir=" + m.path("/etc/yum.repos.d"), "--setopt=cachedir=/var/cache/dnf"}, args...)
}

// base returns a package that provides what Postern's needs of the system. What the machine has belongs to no package.
func (m *machine) base() string {
	m.t.Helper()
	dir := m.t.TempDir()
	spec := filepath.Join(dir, "base.spec")
	if err := os.WriteFile(spec, []byte(`Name: base
Version: 1
Release: 1
Summary: what the machine has
License: none
Provides: systemd libc.so.6(GLIBC_2.34)(64bit) libcrypto.so.3(OPENSSL_3.0.0)(64bit)
%description
%files
`), 0o600); err != nil {
		m.t.Fatal(err)
	}
	run(m.t, testkit.Need(m.t, "rpmbuild"), "-bb", "--define", "_topdir "+dir, "--define", "_rpmdir "+dir,
		"--define", "_rpmfilename base.rpm", spec)
	return filepath.Join(dir, "base.rpm")
}

func TestRPM(t *testing.T) {
	m := newMachine(t)
	rpm := testkit.Need(t, "rpm")
	first, next := packageOf(t, "1", "rpm"), packageOf(t, "2", "rpm")
	if scripts := run(t, rpm, "-qp", "--scripts", first); !strings.Contains(scripts, "systemd-sysusers") {
		t.Errorf("scripts: %s", scripts)
	}
	said, err := command(testkit.Need(t, "dnf"), m.dnfArgs("install", first)...).CombinedOutput()
	for _, need := range []string{"systemd", "libcrypto.so.3(OPENSSL_3.0.0)(64bit)", "libc.so.6(GLIBC_2.34)(64bit)"} {
		if err == nil || !strings.Contains(string(said), "nothing provides "+need+" needed by postern") {
			t.Errorf("a system without %s: %v: %s", need, err, said)
		}
	}
	if said := m.dnf("install", m.base(), first); !strings.Contains(said, "Run 'postern setup'") {
		t.Errorf("nobody is told what to do: %s", said)
	}
	m.belongs("/var/lib/postern", "postern", "postern", 0o700)
	m.belongs("/etc/postern", "root", "postern", 0o750)
	m.boot()
	m.leaveMail()
	config := run(t, "cat", m.path("/etc/postern/relay.toml"))
	if said := m.dnf("install", next); !strings.Contains(said, "Nothing in relay.toml has changed since 1.0.0.\n") {
		t.Errorf("nobody is told what has changed: %s", said)
	}
	m.expectAsked("systemctl daemon-reload", "systemctl try-restart postern.service", "systemctl daemon-reload")
	m.belongs("/etc/postern", "root", "postern", 0o750)
	if list := m.postern("queue", "list"); !strings.Contains(list, "bob@example.net") {
		t.Errorf("the upgrade lost mail: %s", list)
	}
	m.dnf("remove", "postern")
	m.expectAsked("systemctl --no-reload disable --now postern.service", "systemctl daemon-reload")
	if m.exists("/usr/bin/postern") || !m.exists("/var/lib/postern/postern.db") ||
		run(t, "cat", m.path("/etc/postern/relay.toml")) != config {
		t.Error("removing leaves the program, or takes the configuration or mail")
	}
}
