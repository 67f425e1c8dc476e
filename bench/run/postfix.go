//go:build unix

package run

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/testkit/pki"
)

// The names of both ways to measure Postfix.
const (
	postfixSigned   = "Postfix"
	postfixUnsigned = "Postfix unsigned"
)

// Debian's paths.
const (
	postfixSbin   = "/usr/lib/postfix/sbin"
	openDKIMPath  = "/usr/sbin/opendkim"
	dovecotPath   = "/usr/sbin/dovecot"
	postfixPath   = "/usr/sbin/postfix"
	postfixServer = postfixSbin + "/master"
)

// Postfix is Postfix with opendkim as milter and Dovecot for SASL, as in Debian's guides for a submission relay. It
// runs as a private instance in its own directory.
type Postfix struct {
	Unsigned bool // without the milter

	env   *Environment
	group *Group
	dir   string
	port  int
}

// Name implements System.
func (p *Postfix) Name() string {
	if p.Unsigned {
		return postfixUnsigned
	}
	return postfixSigned
}

// Addr implements System.
func (p *Postfix) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// Installed implements System.
func (p *Postfix) Installed() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, path := range []string{postfixPath, postfixServer, openDKIMPath, dovecotPath} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("not installed: %s", path)
		}
	}
	return nil
}

// Start implements System. The time is master's, with milter and SASL already running.
func (p *Postfix) Start(ctx context.Context, e *Environment, g *Group, o StartOptions) (time.Duration, error) {
	p.env, p.group, p.dir = e, g, filepath.Join(e.Dir, "postfix")
	if o.Fresh || p.port == 0 {
		if err := p.configure(); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(p.startDKIM(), p.startDovecot()); err != nil {
		return 0, err
	}
	if _, err := output(g.Command(postfixPath, "-c", p.config(), "check")); err != nil {
		return 0, err
	}
	// master itself, not "postfix start", so that a command can wrap it.
	cmd := g.wrapped(o.Wrap, postfixServer, "-c", p.config(), "-d")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	begin := time.Now()
	if err := startDetached(cmd, filepath.Join(p.dir, "master.out")); err != nil {
		return 0, err
	}
	g.Add(cmd.Process.Pid)
	err := greeted(ctx, p.Addr())
	return time.Since(begin), err
}

// Stop implements System.
func (p *Postfix) Stop() error {
	_, err := output(exec.Command(postfixPath, "-c", p.config(), "stop"))
	return err
}

// Explain implements System.
func (p *Postfix) Explain() string {
	queue, err := output(exec.Command("postqueue", "-c", p.config(), "-p"))
	if err != nil {
		queue += err.Error()
	}
	return "queue:\n" + firstLines(queue, 30)
}

func (p *Postfix) config() string { return filepath.Join(p.dir, "etc") }

func (p *Postfix) configure() error {
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	for _, d := range []string{"etc", "spool", "data", "dkim", "dovecot"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, dir := range map[string]string{"postfix": "data", "opendkim": "dkim"} {
		if err := chown(filepath.Join(p.dir, dir), name); err != nil {
			return err
		}
	}
	var err error
	if p.port, err = freePort(); err != nil {
		return err
	}
	return errors.Join(p.writeMain(), p.writeMaster(), p.writeDKIM(), p.writeDovecot())
}

func chown(path, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return os.Chown(path, uid, gid)
}

func (p *Postfix) write(name, text string) error {
	return os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644)
}

// writeMain writes main.cf. Its choices favour Postfix: upstream connections stay open with their TLS session,
// destination concurrency starts at its limit, there are no DNS look-ups and no logging daemon.
func (p *Postfix) writeMain() error {
	_, sinkPort, _ := strings.Cut(p.env.Sink.Addr(), ":")
	relay := "[127.0.0.1]:" + sinkPort
	lines := []string{
		"compatibility_level = 3.6",
		"queue_directory = " + filepath.Join(p.dir, "spool"),
		"data_directory = " + filepath.Join(p.dir, "data"),
		"command_directory = /usr/sbin", "daemon_directory = " + postfixSbin,
		"mail_owner = postfix", "setgid_group = postdrop", "myhostname = " + relayName,
		"inet_interfaces = 127.0.0.1", "inet_protocols = ipv4",
		"mydestination =", "mynetworks =", "alias_maps =", "local_recipient_maps =", "local_transport = error:none",
		"smtpd_peername_lookup = no", "smtp_dns_support_level = disabled", "smtp_host_lookup = native",
		"default_process_limit = 200", "message_size_limit = 70000000",
		// submission: TLS, AUTH, who may send as whom, DKIM
		"smtpd_tls_security_level = encrypt", "smtpd_tls_auth_only = yes",
		"smtpd_tls_cert_file = " + p.env.CertFile, "smtpd_tls_key_file = " + p.env.KeyFile,
		"smtpd_sasl_auth_enable = yes", "smtpd_sasl_type = dovecot", "smtpd_sasl_path = private/auth",
		"smtpd_sasl_security_options = noanonymous",
		"smtpd_sender_login_maps = inline:{" + sender + "=" + login + "}",
		"smtpd_sender_restrictions = reject_sender_login_mismatch",
		"smtpd_relay_restrictions = permit_sasl_authenticated, reject",
		"smtpd_recipient_restrictions = permit_sasl_authenticated, reject",
		"smtpd_client_connection_count_limit = 0", "smtpd_client_connection_rate_limit = 0",
		"smtpd_client_auth_rate_limit = 0",
		// upstream: TLS with verification, AUTH, connections kept
		"relayhost = " + relay,
		"smtp_tls_security_level = secure", "smtp_tls_CAfile = " + p.env.CAFile,
		"smtp_tls_secure_cert_match = " + sinkName,
		"smtp_sasl_auth_enable = yes", "smtp_sasl_security_options = noanonymous", "smtp_sasl_mechanism_filter = plain",
		"smtp_sasl_password_maps = inline:{{" + relay + " = " + upstreamLogin + ":" + p.env.SinkPassword + "}}",
		"smtp_tls_connection_reuse = yes", "smtp_connection_cache_on_demand = yes",
		"smtp_connection_cache_destinations = " + relay,
		"smtp_destination_concurrency_limit = " + strconv.Itoa(upstreamSessions),
		"initial_destination_concurrency = " + strconv.Itoa(upstreamSessions),
	}
	if !p.Unsigned {
		lines = append(lines, "smtpd_milters = unix:"+filepath.Join(p.dir, "dkim", "socket"),
			"milter_default_action = tempfail")
	}
	return p.write("etc/main.cf", strings.Join(lines, "\n")+"\n")
}

func (p *Postfix) writeMaster() error {
	rows := []string{
		fmt.Sprintf("127.0.0.1:%d inet n - n - 1200 smtpd", p.port),
		"pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
		"tlsmgr unix - - n 1000? 1 tlsmgr", "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush", "proxymap unix - - n - - proxymap", "proxywrite unix - - n - 1 proxymap",
		"smtp unix - - n - - smtp", "relay unix - - n - - smtp", "showq unix n - n - - showq",
		"error unix - - n - - error", "retry unix - - n - - error", "discard unix - - n - - discard",
		"anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache", "tlsproxy unix - - n - 0 tlsproxy",
	}
	return p.write("etc/master.cf", strings.Join(rows, "\n")+"\n")
}

func (p *Postfix) writeDKIM() error {
	key, err := dkimKey()
	if err != nil {
		return err
	}
	path := filepath.Join(p.dir, "dkim", "key.pem")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		return err
	}
	if err := chown(path, "opendkim"); err != nil {
		return err
	}
	dir := filepath.Join(p.dir, "dkim")
	return p.write("dkim/opendkim.conf", strings.Join([]string{
		"Mode s", "Canonicalization relaxed/relaxed", "SignatureAlgorithm rsa-sha256",
		"Domain " + domain, "Selector " + selector, "KeyFile " + path, "OversignHeaders From",
		"Socket local:" + filepath.Join(dir, "socket"), "PidFile " + filepath.Join(dir, "pid"),
		"UserID opendkim", "UMask 000", "Background no", "Syslog no", "RequireSafeKeys no",
		"TemporaryDirectory " + dir, "On-InternalError tempfail",
	}, "\n")+"\n")
}

// dkimKey returns the RSA-2048 key that both systems sign with, as PKCS #1.
func dkimKey() ([]byte, error) {
	key, err := pki.RSAKey()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
}

// dkimRecord is its DNS record.
func dkimRecord() (string, error) {
	key, err := pki.RSAKey()
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), err
}

// writeDovecot configures only authentication, with its cache and a fast salted hash: the comparison is not about the
// cost of a slow one.
func (p *Postfix) writeDovecot() error {
	dir := filepath.Join(p.dir, "dovecot")
	hash, err := output(exec.Command("doveadm", "pw", "-s", "SSHA256", "-p", p.env.Password))
	if err != nil {
		return err
	}
	if err := p.write("dovecot/users", login+":"+strings.TrimSpace(hash)+"\n"); err != nil {
		return err
	}
	return p.write("dovecot/dovecot.conf", fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols =
ssl = no
auth_mechanisms = plain login
auth_cache_size = 10M
auth_cache_ttl = 1 hour
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service auth {
  unix_listener %[2]s/spool/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
service stats {
  client_limit = 10000
}
`, dir, p.dir))
}

func (p *Postfix) startDKIM() error {
	if p.Unsigned {
		return nil
	}
	cmd := p.group.Command(openDKIMPath, "-f", "-x", filepath.Join(p.dir, "dkim", "opendkim.conf"))
	if err := startDetached(cmd, filepath.Join(p.dir, "dkim.out")); err != nil {
		return err
	}
	p.group.Add(cmd.Process.Pid)
	return appears(filepath.Join(p.dir, "dkim", "socket"))
}

func (p *Postfix) startDovecot() error {
	private := filepath.Join(p.dir, "spool", "private")
	if err := os.MkdirAll(private, 0o700); err != nil {
		return err
	}
	if err := chown(private, "postfix"); err != nil {
		return err
	}
	cmd := p.group.Command(dovecotPath, "-F", "-c", filepath.Join(p.dir, "dovecot", "dovecot.conf"))
	if err := startDetached(cmd, filepath.Join(p.dir, "dovecot.out")); err != nil {
		return err
	}
	p.group.Add(cmd.Process.Pid)
	return appears(filepath.Join(private, "auth"))
}

// startDetached starts a command with its output in a file and reaps it when it ends.
func startDetached(cmd *exec.Cmd, log string) error {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // ends with the process, which the group kills
	return nil
}

func appears(path string) error {
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not appear", path)
}
