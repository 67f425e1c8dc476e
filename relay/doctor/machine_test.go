package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/disk"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/finding"
	"postern/relay/queue"
	"postern/relay/status"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

func TestConfigFindings(t *testing.T) {
	w := newWard(t, "[log]\nlevel = \"loud\"\n"+plainUpstream)
	list := w.examine()
	want(t, list, codeConfigProblem, finding.Danger, "log.level", "postern check")
	want(t, list, codeNotExamined, finding.Advice, "no upstream was tried")
	not(t, list, codeUpstreamConnect, codeConfigOK)
	w.daemon(nil)
	want(t, w.examine("config"), codeConfigProblem, finding.Fault, "After a restart")

	w = newWard(t, "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:465\"\n"+plainUpstream)
	w.daemon(nil)
	want(t, w.examine("config"), codeConfigUnwise, finding.Advice, "TLS from the first byte")
	w = newWard(t, "")
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	want(t, w.examine(), codeConfigProblem, finding.Danger, "relay.toml")
	want(t, w.examine("store"), codeConfigProblem, finding.Danger, "relay.toml")

	// What other examiners say better is not said twice.
	expired := testkit.NewCA(t).Leaf(testkit.LeafOptions{NotAfter: time.Now().Add(-time.Hour)})
	list = newWard(t, certified(expired)+plainUpstream).examine("config", "certificates")
	want(t, list, codeCertificateBroken, finding.Danger, "expired")
	not(t, list, codeConfigProblem)
}

func TestDaemonFindings(t *testing.T) {
	want(t, newWard(t, plainUpstream).examine("daemon"), codeDaemonDown, finding.Danger, "systemctl start postern")
	for _, c := range []struct {
		change func(*status.Report)
		code   string
		weight finding.Weight
		word   string
	}{
		{nil, codeDaemonOK, finding.Healthy, "Postern v1 runs"},
		{func(r *status.Report) { r.Phase = status.Starting }, codeDaemonStarting, finding.Danger, "starting"},
		{func(r *status.Report) { r.Phase = status.Stopping }, codeDaemonStopping, finding.Danger, "shutting down"},
		{func(r *status.Report) { r.Refused = "line 3 is bad" }, codeReloadRefused, finding.Fault, "line 3 is bad."},
		{func(r *status.Report) { r.Config = "/srv/other.toml" }, codeOtherConfig, finding.Fault, "/srv/other.toml"},
		{func(r *status.Report) { r.Version = "v0" }, codeOtherVersion, finding.Advice,
			"v0 runs, and this program is v1"},
	} {
		w := newWard(t, plainUpstream)
		w.o.Version = "v1"
		w.daemon(c.change)
		want(t, w.examine("daemon"), c.code, c.weight, c.word)
	}
	w := newWard(t, plainUpstream)
	w.daemon(nil)
	proc := t.TempDir()
	w.o.machine.proc = proc
	not(t, w.examine("daemon"), codeOtherVersion)
	process := filepath.Join(proc, strconv.Itoa(os.Getpid()))
	if err := errors.Join(os.Mkdir(process, 0o700),
		os.Symlink("/usr/bin/postern (deleted)", filepath.Join(process, "exe"))); err != nil {
		t.Fatal(err)
	}
	want(t, w.examine("daemon"), codeOtherVersion, finding.Advice, "was replaced")
}

// A daemon that holds the directory and does not answer is told as that.
func TestASilentDaemon(t *testing.T) {
	w := newWard(t, plainUpstream)
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: w.dir, Daemon: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want(t, w.examine("daemon"), codeDaemonSilent, finding.Danger, "systemctl restart postern")
	x := newExam(t.Context(), w.o)
	x.serving, x.asked = false, &net.OpError{Op: "dial", Err: os.ErrPermission}
	want(t, daemonExam{x}.daemon(t.Context()), codeDaemonForbidden, finding.Fault, "sudo postern doctor")
}

func TestDiskFindings(t *testing.T) {
	for _, c := range []struct {
		room   disk.Room
		change func(*status.Report)
		code   string
		weight finding.Weight
		word   string
	}{
		{disk.Room{Free: 100e9, Files: 1e6, FreeFiles: 9e5}, nil, codeDiskOK, finding.Healthy, "100 GB are free"},
		{disk.Room{Free: 100e9}, nil, codeDiskOK, finding.Healthy, "100 GB are free"}, // counts no files
		{disk.Room{Free: 100e9, ReadOnly: true}, nil, codeDiskReadOnly, finding.Danger, "nothing can be written"},
		{disk.Room{Free: 10e6}, nil, codeDiskFull, finding.Danger, "200 MB must stay free"},
		{disk.Room{Free: 300e6}, nil, codeDiskShort, finding.Fault, "300 MB free"},
		{disk.Room{Free: 100e9, Files: 1e6, FreeFiles: 900}, nil, codeDiskInodes, finding.Fault, "900 more files"},
		{disk.Room{Free: 100e9, Files: 1e6, FreeFiles: 9}, nil, codeDiskInodes, finding.Danger, "9 more files"},
		{disk.Room{Free: 100e9}, func(r *status.Report) {
			r.Disk = status.Disk{Refuses: true, Problem: "store is full"}
		}, codeDiskRefuses, finding.Danger, "store is full."},
		{disk.Room{Free: 100e9}, func(r *status.Report) { r.Disk = status.Disk{Queued: 8e9, MaxSize: 10e9} },
			codeQueueNearlyFull, finding.Fault, "8000 MB"},
	} {
		w := newWard(t, plainUpstream)
		w.o.machine.room = func(string) (disk.Room, error) { return c.room, nil }
		w.daemon(c.change)
		want(t, w.examine("disk"), c.code, c.weight, c.word)
	}
	w := newWard(t, plainUpstream)
	w.o.machine.room = func(string) (disk.Room, error) { return disk.Room{}, errors.New("stale file handle") }
	want(t, w.examine("disk"), codeNotExamined, finding.Advice, "stale file handle.")
}

func TestFileLimit(t *testing.T) {
	w := newWard(t, plainUpstream)
	w.daemon(nil)
	w.o.machine.proc = t.TempDir()
	process := filepath.Join(w.o.machine.proc, strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(process, 0o700); err != nil {
		t.Fatal(err)
	}
	limits := func(n string) {
		text := "Limit                     Soft Limit           Hard Limit           Units     \n" +
			"Max open files            " + n + "                 524288               files     \n"
		if err := os.WriteFile(filepath.Join(process, "limits"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	not(t, w.examine("disk"), codeFileLimit, codeFileLimitOK)
	limits("1024")
	want(t, w.examine("disk"), codeFileLimit, finding.Fault, "may open 1024 files", "LimitNOFILE=")
	limits("524288")
	want(t, w.examine("disk"), codeFileLimitOK, finding.Healthy)
	limits("unlimited")
	not(t, w.examine("disk"), codeFileLimit)
}

// A secret of the store that stands in relay.toml counts as one; a reference to it does not.
func TestLiteralSecretsOfTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.toml")
	for text, want := range map[string]bool{"seal_key = \"MDEy\"": true, "password = 'x'": true,
		"seal_key = \"file:nodes.key\"": false, "  # seal_key = \"MDEy\"": false, "password=\"env:P\"": false} {
		if err := os.WriteFile(path, []byte("[store]\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if hasLiteral(path) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

func TestFileFindings(t *testing.T) {
	secret := strings.Replace(plainUpstream, "port", "username = \"relay\"\npassword = \"letters\"\nport", 1)
	w := newWard(t, secret)
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, w.examine("files"), codeFilesOK, finding.Healthy)
	mode := func(path string, m os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	mode(w.path, 0o644)
	want(t, w.examine("files"), codeFileReadable, finding.Fault, "passwords stand in it", "chmod o-rwx "+w.path)
	mode(w.path, 0o602)
	want(t, w.examine("files"), codeFileWritable, finding.Fault, "chmod o-rwx "+w.path)
	mode(w.path, 0o600)
	mode(w.dir, 0o750)
	want(t, w.examine("files"), codeDataDirOpen, finding.Fault, "chmod 700 "+w.dir)
	mode(w.dir, 0o770)
	want(t, w.examine("files"), codeDataDirOpen, finding.Danger, "mode 0770")
	mode(w.dir, 0o700)
	left := filepath.Join(w.dir, "spool-123")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	not(t, w.examine("files"), codeLeftovers)
	w.o.now = func() time.Time { return time.Now().Add(2 * leftoverAge) }
	want(t, w.examine("files"), codeLeftovers, finding.Advice, "spool-123")
	mode(left, 0o644)
	want(t, w.examine("files"), codeDataDirFiles, finding.Fault, "chmod -R go-rwx "+w.dir)
	// A file of another user takes root to make; what is said of it does not.
	list := fileExam{newExam(t.Context(), w.o)}.inDataDir(990, []string{"/x/postern.db"}, nil, nil)
	want(t, list, codeFileOwner, finding.Danger, "/x/postern.db", "chown -R 990 "+w.dir)
	if os.Geteuid() == 0 {
		if err := os.Chown(left, 12345, -1); err != nil {
			t.Fatal(err)
		}
		want(t, w.examine("files"), codeFileOwner, finding.Danger, left)
	}
}

func TestClockFindings(t *testing.T) {
	w := newWard(t, plainUpstream)
	want(t, w.examine("clock"), codeClockOK, finding.Healthy)
	w.o.machine.clock = func() (bool, bool) { return false, true }
	want(t, w.examine("clock"), codeClockFree, finding.Advice, "timedatectl set-ntp true")
	w.o.machine.clock = func() (bool, bool) { return false, false }
	want(t, w.examine("clock"), codeNotExamined, finding.Advice, "what time it is")
	for off, weight := range map[time.Duration]finding.Weight{-time.Minute: finding.Fault, time.Hour: finding.Danger} {
		o := newOffice(t, "")
		o.o.now = func() time.Time { return time.Now().Add(off) }
		list := o.examine("clock")
		want(t, list, codeClockWrong, weight, "upstream m365", map[bool]string{true: "ahead", false: "behind"}[off > 0])
	}
	want(t, newOffice(t, "").examine("clock"), codeClockOK, finding.Healthy)
}

func TestStoreFindings(t *testing.T) {
	w := newWard(t, plainUpstream)
	want(t, w.examine("store"), codeStoreOK, finding.Healthy, "no store yet")
	w.daemon(nil)
	want(t, w.examine("store"), codeStoreOK, finding.Healthy, "all of it read")
	x := storeExam{newExam(t.Context(), w.o)}
	for _, c := range []struct {
		health relaystore.Health
		code   string
		weight finding.Weight
		word   string
	}{
		{relaystore.Health{Damage: []string{"row 1 missing", "page 7"}}, codeStoreDamaged, finding.Danger,
			"row 1 missing; page 7."},
		{relaystore.Health{Log: 1 << 30}, codeStoreLog, finding.Fault, "1073 MB"},
		{relaystore.Health{History: 9e9, Events: 12}, codeStoreHistory, finding.Advice, "9000 MB (12 entries)"},
		{relaystore.Health{File: 10 << 30, Within: 6 << 30}, codeStoreEmpty, finding.Advice, "VACUUM"},
		{relaystore.Health{File: 10 << 30}, codeStoreOK, finding.Healthy, "too large to be read whole"},
	} {
		want(t, x.storeFindings("postern.db", c.health), c.code, c.weight, c.word)
	}
	if err := os.Remove(filepath.Join(w.dir, relaystore.FileName)); err != nil {
		t.Fatal(err)
	}
	want(t, w.examine("store"), codeStoreGone, finding.Danger, "Keep Postern running")
	w = newWard(t, plainUpstream)
	older := testkit.Unzip(t, "../store/testdata/schema32/postern.db.gz")
	err := os.MkdirAll(w.dir, 0o700)
	if err = errors.Join(err, os.WriteFile(filepath.Join(w.dir, relaystore.FileName), older, 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, w.examine("store"), codeStoreOlder, finding.Advice, "(schema 32): the next start of this one")
}

// A store whose pages are overwritten is found damaged, and one that is no database unreadable.
func TestADamagedStore(t *testing.T) {
	w := newWard(t, plainUpstream)
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: w.dir, Daemon: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, relaystore.FileName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 2; i < len(data); i++ {
		data[i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	list := w.examine("store")
	if _, ok := with(list, codeStoreDamaged); !ok {
		want(t, list, codeStoreUnreadable, finding.Danger, "damaged")
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, w.examine("store"), codeStoreUnreadable, finding.Danger, "keep a copy")
}

func TestQueueFindings(t *testing.T) {
	w := newWard(t, plainUpstream)
	s := w.daemon(nil)
	want(t, w.examine("queue"), codeQueueOK, finding.Healthy)
	now := time.Now()
	add := func(id string, age time.Duration, held bool) {
		t.Helper()
		m := &queue.Message{ID: id, Login: "anna@example.com", Received: now.Add(-age),
			Expires:     now.Add(48*time.Hour - age),
			NextAttempt: now, Envelope: mail.Envelope{From: mail.Address{Local: "anna", Domain: "example.com"}},
			Size: 5,
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "b",
				Domain: "example.net"}}}}, Held: held,
			HoldReason: "too many recipients", LastReply: mail.R(451, "4.7.0", "wait\x1b[2J a while")}
		if err := s.Add(t.Context(),
			queue.NewMessage{Message: m, Content: mail.BytesContent([]byte("x\r\n.."))}); err != nil {
			t.Fatal(err)
		}
	}
	add("m3", time.Hour, true)
	want(t, w.examine("queue"), codeHeld, finding.Advice, "1 held message", "postern queue release")
	add("m2", 6*time.Hour, false)
	want(t, w.examine("queue"), codeQueueOld, finding.Fault, "message m2", "451 4.7.0", "postern queue retry m2")
	add("m1", 40*time.Hour, false)
	list := w.examine("queue")
	want(t, list, codeQueueOld, finding.Danger, "message m1")
	if strings.Contains(fmt.Sprint(list), "\x1b") {
		t.Error("an escape sequence got through")
	}
	add("m0", 72*time.Hour, true)
	want(t, w.examine("queue"), codeHeldLong, finding.Fault, "anna@example.com", "too many recipients.")
}

func TestAccountFindings(t *testing.T) {
	w := newWard(t, plainUpstream)
	want(t, w.examine("accounts"), codeAccountNone, finding.Fault, "postern user add")
	s := w.daemon(nil)
	addUser(t, s, auth.User{Login: "anna@example.com"})
	want(t, w.examine("accounts"), codeAccountsOK, finding.Healthy, "1 account,")
	addUser(t, s, auth.User{Login: "boss@example.com", Locked: true, LockReason: "sent 500 messages"})
	addUser(t, s, auth.User{Login: "scanner"})
	addUser(t, s, auth.User{Login: "fax@example.com", Device: true, Created: time.Now().Add(-72 * time.Hour)})
	addUser(t, s, auth.User{Login: "copier@example.com", Device: true, Created: time.Now().Add(-72 * time.Hour)})
	if err := s.AppendEventsNow(t.Context(), []trace.Event{{Time: time.Now(), Kind: trace.Accepted,
		Login: "copier@example.com", ID: "m1"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.LoginLockout().Save(t.Context(), time.Now(), auth.Unsaved{Locks: []auth.Lock{{Login: "eve@example.com",
		Until: time.Now().Add(time.Hour), Failures: 20}}}); err != nil {
		t.Fatal(err)
	}
	list := w.examine("accounts")
	want(t, list, codeLoginLocked, finding.Fault, "sent 500 messages.", "postern user unlock boss@example.com")
	want(t, list, codeLoginSilent, finding.Fault, "postern user set scanner --sender")
	want(t, list, codeDeviceUnseen, finding.Advice, "fax@example.com")
	want(t, list, codeLockout, finding.Advice, "20 wrong passwords", "postern user unlock eve@example.com")
	if strings.Contains(text(list), "copier") {
		t.Errorf("a device that sends is unseen:\n%s", text(list))
	}
}

func TestAlertFindings(t *testing.T) {
	want(t, newWard(t, plainUpstream).examine("alerts"), codeAlertNone, finding.Advice, "postern alert test")
	ca := testkit.NewCA(t)
	hook := startHook(t, ca.Leaf(testkit.LeafOptions{}))
	block := fmt.Sprintf("[[alert]]\nurl = \"https://%s/hooks/tOkEn\"\n", hook.addr)
	list := newWard(t, plainUpstream+block).examine("alerts")
	want(t, list, codeAlertUnreachable, finding.Fault, "certificate", hook.addr)
	if strings.Contains(fmt.Sprint(list), "tOkEn") {
		t.Error("the secret of the hook is told")
	}
	want(t, newWard(t, plainUpstream+block+fmt.Sprintf("ca_file = %q\n", ca.File)).examine("alerts"), codeAlertOK,
		finding.Healthy)
	if n := hook.octets.Load(); n != 0 {
		t.Errorf("the hook was told %d octets", n)
	}
	want(t, newWard(t, plainUpstream+"[[alert]]\nurl = \"https://127.0.0.1:1/\"\n").examine("alerts"),
		codeAlertUnreachable, finding.Fault, "cannot be reached")
}
