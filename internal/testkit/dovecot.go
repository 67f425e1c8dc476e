package testkit

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"testing"
)

// Dovecot is a Dovecot of a test's own that does nothing but authenticate.
type Dovecot struct {
	t       testing.TB
	conf    string
	Socket  string // of auth-client
	process *Process
}

const dovecotConf = `protocols =
base_dir = %[1]s
state_dir = %[1]s
log_path = /dev/stderr
ssl = no
disable_plaintext_auth = yes
auth_mechanisms = plain
auth_failure_delay = 0
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
service auth {
  user = %[2]s
  chroot =
  unix_listener auth-client {
    mode = 0600
    user = %[2]s
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
passdb {
  driver = passwd-file
  args = scheme=SHA512-CRYPT %[4]s
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}
`

// NewDovecot starts one that knows the lines of a passwd-file. It may be stopped and started again.
func NewDovecot(t testing.TB, users string) *Dovecot {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	Need(t, "dovecot")
	dir, err := os.MkdirTemp("", "dovecot") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	run, passwd := filepath.Join(dir, "run"), filepath.Join(dir, "passwd") // run gets a link to dovecot.conf
	d := &Dovecot{t: t, conf: filepath.Join(dir, "dovecot.conf"), Socket: filepath.Join(run, "auth-client")}
	conf := fmt.Sprintf(dovecotConf, run, me.Username, group.Name, passwd)
	for path, text := range map[string]string{passwd: users, d.conf: conf} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.Start()
	return d
}

// Start starts one that was stopped.
func (d *Dovecot) Start() {
	d.t.Helper()
	d.process = Start(d.t, nil, Need(d.t, "dovecot"), "-F", "-c", d.conf)
	d.process.WaitLog("starting up") // its sockets are there
}

// Kill ends it at once. The next one would wait for a lock that it left, and hang meanwhile.
func (d *Dovecot) Kill() {
	d.process.Kill()
	os.Remove(d.Socket)
	os.Remove(filepath.Join(filepath.Dir(d.Socket), "instances.lock"))
}

// Configure adds a line to the configuration of one that is started after.
func (d *Dovecot) Configure(line string) {
	d.t.Helper()
	text, err := os.ReadFile(d.conf)
	if err == nil {
		err = os.WriteFile(d.conf, append(text, line+"\n"...), 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}
