package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"postern/bench/ledger"
	"postern/bench/load"
	"postern/bench/sink"
	"postern/internal/testkit"
)

// siege is a relay process between the load generator and a sink that fails on demand; both keep
// account of every message, so that a loss or a duplicate is seen.
type siege struct {
	*office
	sink *sink.Sink
}

// open makes a relay that does not run yet, with a listener, no limits, an upstream at a port of this machine, to which
// extra is added, and anna.
func (o *office) open(cert testkit.Cert, handoff, port, extra string) {
	o.t.Helper()
	o.configure("localhost", cert, handoff, "[[policy]]\nlimits = []\n"+o.provider(port)+extra)
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
}

// configure writes a relay.toml with one listener, which ends with settings.
func (o *office) configure(hostname string, cert testkit.Cert, handoff, settings string) {
	o.t.Helper()
	o.address = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(o.t))
	o.config = filepath.Join(o.dir, "relay.toml")
	o.write("relay.toml", fmt.Sprintf(`hostname = %q
data_dir = "data"
tls.cert_file = %q
tls.key_file = %q
admin.address = ""
log.level = "warn"
delivery.retry = ["1s"]
[[listener]]
address = %q
handoff = %q
%s`, hostname, cert.CertFile, cert.KeyFile, o.address, handoff, settings))
}

// provider is the [[upstream]] at a port of this machine, its last table.
func (o *office) provider(port string) string {
	return fmt.Sprintf(`[[upstream]]
name = "provider"
host = "127.0.0.1"
port = %s
ca_file = %q
username = "relay"
password = "upstream secret"
`, port, o.ca.File)
}

func newSiege(t *testing.T, handoff string, faults []sink.Fault, extra string) *siege {
	t.Helper()
	o := &office{t: t, dir: t.TempDir(), ca: testkit.NewCA(t)}
	cert := o.ca.Leaf(testkit.LeafOptions{})
	up, err := sink.Start(t.Context(), sink.Options{TLS: cert.Server(), Username: "relay", Password: "upstream secret",
		Faults: faults, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	_, port, err := net.SplitHostPort(up.Addr())
	if err != nil {
		t.Fatal(err)
	}
	o.open(cert, handoff, port, extra)
	return &siege{office: o, sink: up}
}

func (s *siege) start() *testkit.Process {
	s.t.Helper()
	p := testkit.Postern(s.t, "serve", "--config", s.config)
	s.until("the relay accepts", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

func (s *siege) load(run string, count int) *load.Report {
	s.t.Helper()
	report, err := load.Run(s.t.Context(), s.loadConfig(run, count))
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

func (s *siege) loadConfig(run string, count int) load.Config {
	return load.Config{
		Addr: s.address, TLS: s.ca.Client("localhost"), Login: "anna@example.com", Password: "a chosen password",
		From: "anna@example.com", To: []string{"bob@example.net"}, Run: run, Size: 2000,
		Connections: 8, Count: count, Timeout: time.Minute, ConnectTries: 1000,
	}
}

// settle retries what waits until everything accepted has arrived and the queue is empty.
func (s *siege) settle(claims ...ledger.Claim) {
	s.t.Helper()
	last := ""
	deadline := time.Now().Add(2 * patience)
	for {
		testkit.Run(s.t, "", "queue", "retry", "--all", "--config", s.config)
		missing := 0
		for _, c := range claims {
			missing += s.sink.Ledger().Check(c).Missing
		}
		last = testkit.Run(s.t, "", "queue", "list", "--config", s.config).Text
		if missing == 0 && strings.Contains(last, "The queue is empty.") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d messages never arrived; the queue:\n%s", missing, last)
		}
	}
}

// TestKillUnderLoadLosesNothing: promise 1. Whatever was answered 250 arrives, whenever the process is
// killed; twice only where an attempt was under way when it died.
func TestKillUnderLoadLosesNothing(t *testing.T) {
	for _, handoff := range []string{"5s", "0s"} {
		t.Run("handoff "+handoff, func(t *testing.T) {
			s := newSiege(t, handoff, nil, "max_connections = 8\n")
			// A slower upstream keeps attempts in flight when the process dies.
			s.sink.SetDelay(5 * time.Millisecond)
			p := s.start()
			ctx, enough := context.WithCancel(t.Context())
			defer enough()
			var report *load.Report
			var err error
			var loading sync.WaitGroup
			loading.Go(func() { report, err = load.Run(ctx, s.loadConfig("kill", 1<<20)) })
			kills := 0
			for _, more := range []int64{40, 70, 15, 90, 55} {
				until := s.sink.Stats().Messages + more
				s.until(fmt.Sprintf("the upstream has %d messages", until),
					func() bool { return s.sink.Stats().Messages >= until })
				p.Kill()
				kills++
				p = s.start()
			}
			enough()
			loading.Wait()
			if err != nil {
				t.Fatal(err)
			}
			claim := report.Claim()
			if claim.Accepted.Len() < 50 {
				t.Fatalf("only %d messages were accepted: the test proves nothing", claim.Accepted.Len())
			}
			s.settle(claim)
			proof := s.sink.Ledger().Check(claim)
			t.Logf("%d accepted, %d uncertain, %d arrived, %d twice, %d kills", claim.Accepted.Len(),
				claim.Uncertain.Len(), proof.Arrived, proof.Duplicates, kills)
			if !proof.Lossless() || proof.Unclaimed > 0 {
				t.Errorf("%+v", proof)
			}
			// Only a message between its final dot and the record of the answer may come twice, and each of the 8
			// connections has one at most: the next has to wait for that record.
			if most := kills * 8; proof.Duplicates > most {
				t.Errorf("%d messages arrived twice, at most %d attempts were cut: %v", proof.Duplicates, most,
					proof.Twice)
			}
			p.Stop()
		})
	}
}

// TestKilledBeforeTheCommitRepeatsNothing: what the upstream took and said so is not sent again, also if the process is
// killed before it could record that in the store.
func TestKilledBeforeTheCommitRepeatsNothing(t *testing.T) {
	s := newSiege(t, "0s", nil, "max_connections = 8\n")
	p := s.start()
	const messages = 8
	answers := s.sink.Hold()
	defer answers.Release()
	report, err := load.Run(t.Context(), s.loadConfig("uncommitted", messages))
	if err != nil {
		t.Fatal(err)
	}
	claim := report.Claim()
	if claim.Accepted.Len() != messages {
		t.Fatalf("%d messages were accepted", claim.Accepted.Len())
	}
	s.until("the upstream has every message and has answered none", func() bool { return answers.Held() == messages })
	unlock := lockStore(t, filepath.Join(s.dir, "data", "postern.db"))
	answers.Release()
	s.until("every answer is in the journal", func() bool {
		b, err := os.ReadFile(filepath.Join(s.dir, "data", "answers.0"))
		return err == nil && bytes.Count(b, []byte("\n")) == messages
	})
	p.Kill()
	unlock()
	p = s.start()
	s.settle(claim)
	if proof := s.sink.Ledger().Check(claim); !proof.OK() {
		t.Errorf("%+v", proof)
	}
	s.traceHas("", "delivered")
	p.Stop()
}

// lockStore keeps everybody else from writing to a store, as a long transaction of another process would.
func lockStore(t *testing.T, path string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(conn.Close(), db.Close()); err != nil { // rolls back
			t.Error(err)
		}
	}
}

// TestUpstreamFaultsLoseNothing: promises 1 and 2 over every stage of an upstream session.
func TestUpstreamFaultsLoseNothing(t *testing.T) {
	t.Parallel()
	half := 0.5
	for _, test := range []struct {
		name    string
		faults  []sink.Fault
		exactly bool // no duplicate is possible
	}{
		{"greeting refused", []sink.Fault{{Stage: sink.AtConnect, Reply: "421 4.3.2 busy", Times: 3}}, true},
		{"greeting refused for good", []sink.Fault{{Stage: sink.AtConnect, Reply: "554 5.3.2 no", Times: 2}}, true},
		{"EHLO refused", []sink.Fault{{Stage: sink.AtEHLO, Reply: "550 5.0.0 no", Times: 2}}, true},
		{"STARTTLS refused", []sink.Fault{{Stage: sink.AtStartTLS, Reply: "454 4.7.0 no TLS now", Times: 2}}, true},
		{"login refused", []sink.Fault{{Stage: sink.AtAuth, Reply: "535 5.7.8 bad credentials", Times: 1}}, true},
		{"MAIL deferred", []sink.Fault{{Stage: sink.AtMail, Reply: "451 4.3.0 later", Probability: half, Times: 30}},
			true},
		{"RCPT deferred", []sink.Fault{{Stage: sink.AtRcpt, Reply: "450 4.2.0 greylisted", Probability: half,
			Times: 30}}, true},
		{"DATA deferred", []sink.Fault{{Stage: sink.AtData, Reply: "451 4.3.0 later", Probability: half, Times: 30}},
			true},
		{"final dot deferred", []sink.Fault{{Stage: sink.AtDot, Reply: "452 4.3.1 full", Probability: half, Times: 30}},
			true},
		{"closed in the transfer", []sink.Fault{{Stage: sink.AtBody, Action: sink.Hangup, Probability: half,
			Times: 10}}, true},
		{"closed at the dot, not taken", []sink.Fault{{Stage: sink.AtDot, Action: sink.Hangup, Probability: half,
			Times: 10}}, true},
		{"taken, reply lost", []sink.Fault{{Stage: sink.AtDot, Action: sink.Taken, Probability: half, Times: 10}},
			false},
		{"421 at MAIL", []sink.Fault{{Stage: sink.AtMail, Reply: "421 4.3.2 going down", Times: 3}}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSiege(t, "1s", test.faults, "")
			p := s.start()
			claim := s.load("faults", 40).Claim()
			if n := claim.Accepted.Len(); n != 40 {
				t.Fatalf("%d of 40 messages were accepted: temporary trouble of the upstream is not the client's\n%s",
					n, p.Log())
			}
			s.unpause(p, claim)
			proof := s.sink.Ledger().Check(claim)
			if !proof.Lossless() || test.exactly && !proof.OK() {
				t.Errorf("%+v", proof)
			}
			if s.sink.Stats().Messages != int64(40+proof.Duplicates) {
				t.Errorf("the sink took %d messages: a report was sent for what was nobody's fault",
					s.sink.Stats().Messages)
			}
		})
	}
}

// unpause settles as a person would who has mended the upstream: a restart forgets that it was paused.
func (s *siege) unpause(p *testkit.Process, claim ledger.Claim) {
	s.t.Helper()
	s.sink.SetFaults(nil)
	p.Stop()
	p = s.start()
	s.settle(claim)
	p.Stop()
}

// TestBadUpstreamCertificateKeepsTheMail: a certificate that is not for the host, or has expired, is
// never overlooked, and its mail waits.
func TestBadUpstreamCertificateKeepsTheMail(t *testing.T) {
	t.Parallel()
	ca := testkit.NewCA(t)
	for name, cert := range map[string]testkit.Cert{"wrong name": ca.WrongName(), "expired": ca.Expired()} {
		t.Run(name, func(t *testing.T) {
			s := newSiege(t, "1s", nil, "")
			bad, err := sink.Start(t.Context(), sink.Options{TLS: cert.Server(), Username: "relay",
				Password: "upstream secret"})
			if err != nil {
				t.Fatal(err)
			}
			defer bad.Close()
			_, port, _ := net.SplitHostPort(s.sink.Addr())
			_, badPort, _ := net.SplitHostPort(bad.Addr())
			text, err := os.ReadFile(s.config)
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.ReplaceAll(text, []byte("port = "+port), []byte("port = "+badPort))
			text = bytes.ReplaceAll(text, []byte(s.ca.File), []byte(ca.File))
			s.write("relay.toml", string(text))
			p := s.start()
			claim := s.load("cert", 3).Claim()
			if claim.Accepted.Len() != 3 {
				t.Fatalf("accepted %d of 3", claim.Accepted.Len())
			}
			if stats := bad.Stats(); stats.Logins != 0 || stats.Messages != 0 {
				t.Errorf("the password or the mail went to an upstream that is not who it says: %+v", stats)
			}
			if list := s.postern("", "queue", "list"); !strings.Contains(list, "certificate") {
				t.Errorf("the queue does not say why:\n%s", list)
			}
			p.Stop()
		})
	}
}

// TestFullDisk: accepted mail survives, new mail is answered 452, and mail flows again when there is room.
func TestFullDisk(t *testing.T) {
	testkit.NeedRoot(t)
	s := newSiege(t, "0s", []sink.Fault{{Stage: sink.AtMail, Reply: "451 4.3.0 later"}}, "")
	data := filepath.Join(s.dir, "small")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	mount := exec.Command("mount", "-t", "tmpfs", "-o", "size=400m,mode=0700", "tmpfs", data)
	if out, err := mount.CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", data).Run() })
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.write("relay.toml", strings.Replace(string(text), `data_dir = "data"`, `data_dir = "small"`, 1))
	s.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := s.start()
	report, err := load.Run(t.Context(), load.Config{
		Addr: s.address, TLS: s.ca.Client("localhost"), Login: "anna@example.com", Password: "a chosen password",
		From: "anna@example.com", To: []string{"bob@example.net"}, Run: "full", Size: 2_000_000, Connections: 4,
		Count: 300,
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for reply, n := range report.Refused {
		if !strings.HasPrefix(reply, "452") {
			t.Errorf("%d times %q: want 452", n, reply)
		}
		refused += n
	}
	if refused == 0 || report.Accepted.Len() == 0 {
		t.Fatalf("accepted %d, refused %v: the disk never was full", report.Accepted.Len(), report.Refused)
	}
	p.Kill()
	p = s.start()
	s.sink.SetFaults(nil)
	s.settle(report.Claim())
	if proof := s.sink.Ledger().Check(report.Claim()); !proof.OK() {
		t.Errorf("%+v", proof)
	}
	s.until("there is room again", func() bool { return testkit.Smtplib(t, s.submission("after")).OK })
	p.Stop()
}

// TestStoreThatCannotBeUsedIsRefusedAtStart: each way to spoil a data directory has a sentence.
func TestStoreThatCannotBeUsedIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, db string) error{
		"garbage": func(_ *testing.T, db string) error {
			return os.WriteFile(db, bytes.Repeat([]byte("garbage "), 4096), 0o600)
		},
		"truncated": func(_ *testing.T, db string) error { return os.Truncate(db, 5000) },
		"directory": func(_ *testing.T, db string) error { os.Remove(db); return os.Mkdir(db, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSiege(t, "0s", nil, "")
			db := filepath.Join(s.dir, "data", "postern.db")
			for _, side := range []string{"-wal", "-shm"} {
				os.Remove(db + side)
			}
			if err := spoil(t, db); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, testkit.Binary(t), "serve", "--config", s.config).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "postern.db") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
