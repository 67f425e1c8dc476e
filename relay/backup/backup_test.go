//go:build unix

package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/disk"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/seal"
	"postern/relay/store"
)

// killVariable, in the environment of the test binary, has it make or restore a backup and be killed at a step.
const killVariable = "POSTERN_TEST_BACKUP_KILL"

func TestMain(m *testing.M) {
	if at := os.Getenv(killVariable); at != "" {
		if err := killed(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// killed does what "make 3 DIR FILE" or "restore 3 DIR FILE" says, and kills itself at that step.
func killed(what string) error {
	f := strings.Fields(what)
	at, err := strconv.Atoi(f[1])
	if err != nil {
		return err
	}
	n := 0
	step := func(string) {
		if n++; n == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if f[0] == "restore" {
		from, err := os.Open(f[3])
		if err != nil {
			return err
		}
		defer from.Close()
		_, err = Restore(context.Background(), from, RestoreOptions{Dir: f[2], Passphrase: secret, Settle: settle,
			step: step})
		return err
	}
	s, err := store.Open(context.Background(), store.Options{Dir: f[2]})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = Make(context.Background(), Options{Config: configOf(f[2]), Store: s, File: f[3], step: step})
	return err
}

const passphrase auth.Secret = "correct horse"

// secret is asked for where a backup is encrypted.
var secret = Passphrase{Ask: func() (auth.Secret, error) { return passphrase, nil }}

func taken(*Manifest) error { return nil }

func settle(ctx context.Context, s *store.Store, _ *Manifest) error { return s.EndSessions(ctx) }

// configOf is that of a data directory, with a relay.toml beside it.
func configOf(dir string) *config.Config {
	path := filepath.Join(filepath.Dir(dir), "relay.toml")
	return config.Parse(path, fmt.Appendf(nil, "hostname = \"relay.example.com\"\ndata_dir = %q\n", dir))
}

// home is a data directory in use, and what is to come back of it.
type home struct {
	*testing.T
	dir  string
	base string // where dir is
	s    *store.Store
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{T: t, base: t.TempDir()}
	h.dir = filepath.Join(h.base, "data")
	var err error
	h.s, err = store.Open(t.Context(), store.Options{Dir: h.dir})
	h.must(err)
	t.Cleanup(func() { h.must(h.s.Close()) })
	h.must(h.s.AddUser(t.Context(), auth.User{Login: "anna", Hash: "one", Created: time.Now()}))
	_, err = h.s.Secret(t.Context(), "pepper", 32)
	h.must(err)
	h.add("m1")
	h.must(os.MkdirAll(filepath.Join(h.dir, "tls"), 0o700))
	for name, text := range map[string]string{"alerts.json": "{}", "tls/self-signed-rsa.pem": "a key",
		"tls/self-signed.crt": "a certificate", "postern.sock": "not ours", "../relay.toml": "hostname = \"x\"\n"} {
		h.must(os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600))
	}
	return h
}

func (h *home) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *home) add(id string) {
	h.Helper()
	to, err := mail.ParseAddress("bob@example.net")
	h.must(err)
	m := &queue.Message{ID: id, Login: "anna", Received: time.Now(), Expires: time.Now().Add(time.Hour),
		Envelope:   mail.Envelope{From: to},
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: to}, Status: queue.Pending}}}
	h.must(h.s.Add(h.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent("Subject: x\r\n\r\nx\r\n")}))
}

func (h *home) options(file string) Options {
	return Options{Config: configOf(h.dir), Store: h.s, File: filepath.Join(h.base, file), Version: "1.2.3", Work: 10}
}

func (h *home) make(o Options) (Made, string) {
	h.Helper()
	made, err := Make(h.Context(), o)
	h.must(err)
	return made, o.File
}

// restore brings a file back into a fresh directory.
func (h *home) restore(file string, o RestoreOptions) (dir string, err error) {
	h.Helper()
	from, err := os.Open(file)
	h.must(err)
	defer from.Close()
	if o.Dir == "" {
		o.Dir = filepath.Join(h.TempDir(), "data")
	}
	if o.Passphrase.Ask == nil {
		o.Passphrase = secret
	}
	if o.Settle == nil {
		o.Settle = settle
	}
	_, err = Restore(h.Context(), from, o)
	return o.Dir, err
}

// names are all files below a directory, but the lock.
func names(t testing.TB, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && path != dir && d.Name() != store.LockName {
			rel, _ := filepath.Rel(dir, path)
			all = append(all, rel)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// wantHome looks at what came back.
func (h *home) wantHome(dir string, files ...string) {
	h.Helper()
	want := append([]string{"postern.db", "seal.key"}, files...)
	if got := names(h, dir); !slices.Equal(sorted(got), sorted(want)) {
		h.Errorf("%s has %v, not %v", dir, got, want)
	}
	for _, name := range names(h, dir) {
		info, err := os.Lstat(filepath.Join(dir, name))
		h.must(err)
		if info.Mode().Perm()&0o077 != 0 {
			h.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	s, err := store.Open(h.Context(), store.Options{Dir: dir, Daemon: true})
	h.must(err)
	defer s.Close()
	u, err := s.User(h.Context(), "anna")
	h.must(err)
	before, err := h.s.Secret(h.Context(), "pepper", 32)
	h.must(err)
	pepper, err := s.Secret(h.Context(), "pepper", 32)
	if err != nil || u.Hash != "one" || !bytes.Equal(before, pepper) {
		h.Errorf("%v, %+v", err, u)
	}
	if _, err := s.Get(h.Context(), "m1"); err != nil {
		h.Error(err)
	}
}

// A copy of the store that a killed backup has left goes with the next one of any name, and at the start of the daemon;
// while a backup has it, it stays.
func TestCopyGoes(t *testing.T) {
	h := newHome(t)
	left := filepath.Join(h.dir, "backup.part", store.FileName)
	leave := func(at int) {
		t.Helper()
		if !h.killAt("make", at, h.dir, filepath.Join(h.base, "killed")) {
			t.Fatal("not killed")
		}
		if _, err := os.Stat(left); err != nil {
			t.Fatal(err)
		}
	}
	gone := func() {
		t.Helper()
		if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the copy is there: %v", err)
		}
	}
	leave(3) // as it writes the archive
	h.make(h.options("another"))
	gone()
	leave(3)
	daemon := func() { h.must(must(store.Open(t.Context(), store.Options{Dir: h.dir, Daemon: true})).Close()) }
	daemon()
	gone()
	o := h.options("third")
	o.step = func(what string) {
		if what != "write" {
			return
		}
		daemon()
		if _, err := os.Stat(left); err != nil {
			t.Error(err)
		}
		if _, err := Make(t.Context(), h.options("fourth")); err == nil ||
			!strings.Contains(err.Error(), "another backup is just being made") {
			t.Error(err)
		}
	}
	h.make(o)
	gone()
}

// A check writes no key to the disk.
func TestCheckWritesNoKey(t *testing.T) {
	h := newHome(t)
	o := h.options("sealed")
	o.Passphrase = passphrase
	_, sealed := h.make(o)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	var wrote []string
	from := must(os.Open(sealed))
	defer from.Close()
	_, err := Check(t.Context(), from, RestoreOptions{Passphrase: secret,
		step: func(what string) { wrote = append(wrote, what) }})
	if err != nil || !slices.Equal(wrote, []string{"write postern.db"}) || len(names(t, tmp)) != 0 {
		t.Errorf("%v, %v, %v", err, wrote, names(t, tmp))
	}
}

// nothingLeft looks for what a backup has beside it while it is made.
func (h *home) nothingLeft() {
	h.Helper()
	for _, name := range names(h, h.base) {
		if strings.Contains(name, ".part") {
			h.Errorf("%s is left behind", name)
		}
	}
}

func sorted(s []string) []string { s = slices.Clone(s); slices.Sort(s); return s }

// With a passphrase a backup is all that is needed; without one it has nothing that is as good as a password.
func TestMakeAndRestore(t *testing.T) {
	h := newHome(t)
	o := h.options("plain")
	made, plain := h.make(o)
	if made.Messages != 1 || made.Encrypted || made.Key != filepath.Join(h.dir, "seal.key") || made.HasKey() {
		t.Errorf("%+v", made)
	}
	key := filepath.Join(h.base, "seal.key.copy")
	data, err := os.ReadFile(made.Key)
	h.must(err)
	h.must(os.WriteFile(key, data, 0o600))
	if text, err := os.ReadFile(plain); err != nil || bytes.Contains(text, data) ||
		bytes.Contains(text, []byte("a key")) {
		t.Errorf("the key is in it, %v", err)
	}
	dir, err := h.restore(plain, RestoreOptions{SealKey: key})
	h.must(err)
	h.wantHome(dir, "alerts.json")

	o = h.options("sealed")
	o.Passphrase = passphrase
	made, sealed := h.make(o)
	if !made.Encrypted || made.Key != "" || !made.HasKey() || made.Version != "1.2.3" || !made.Mail {
		t.Errorf("%+v", made)
	}
	if info, err := os.Stat(sealed); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	dir, err = h.restore(sealed, RestoreOptions{})
	h.must(err)
	h.wantHome(dir, "alerts.json", "tls", "tls/self-signed-rsa.pem", "tls/self-signed.crt")
	from, err := os.Open(sealed)
	h.must(err)
	defer from.Close()
	if text, err := Configuration(from, secret); err != nil || string(text) != "hostname = \"x\"\n" {
		t.Errorf("%q, %v", text, err)
	}
	h.nothingLeft()

	var out bytes.Buffer
	o = h.options("")
	o.File, o.Out, o.WithoutMail = Standard, &out, true
	if made, _ := h.make(o); made.Messages != 0 || made.Mail {
		t.Errorf("%+v", made)
	}
	m, err := Check(t.Context(), &out, RestoreOptions{SealKey: key})
	if err != nil || m.Hostname != "relay.example.com" || m.Messages != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// changed is a backup with some parts changed, and right checksums again.
func changed(t *testing.T, made string, change func(m *Manifest, files map[string][]byte)) string {
	t.Helper()
	f, err := os.Open(made)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts := map[string][]byte{}
	m, err := readArchive(plain{Reader: f}, taken, func(p Part, r io.Reader) (err error) {
		parts[p.Name], err = io.ReadAll(r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	change(&m, parts)
	var files []file
	for name, data := range parts {
		one := file{Part: Part{Name: name}, data: data}
		if err := one.measure(); err != nil {
			t.Fatal(err)
		}
		files = append(files, one)
	}
	path := filepath.Join(t.TempDir(), "changed")
	var b bytes.Buffer
	if err := errors.Join(writeTar(&b, &m, files), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// What cannot be brought back is refused with its reason, and the directory stays as empty as it was.
func TestRestoreRefuses(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	key := filepath.Join(h.dir, "seal.key")
	o := h.options("sealed")
	o.Passphrase = passphrase
	_, sealed := h.make(o)
	other := filepath.Join(h.base, "other.key")
	h.must(os.WriteFile(other, bytes.Repeat([]byte{7}, 32), 0o600))
	long := filepath.Join(h.base, "long.key")
	h.must(os.WriteFile(long, bytes.Repeat([]byte{7}, 5000), 0o600))
	cases := []struct {
		name, file, want string
		o                RestoreOptions
	}{
		{"no key", plain, "name the file that was in data_dir with --seal-key", RestoreOptions{}},
		{"another key", plain, "other.key is not the one", RestoreOptions{SealKey: other}},
		{"no key at all", plain, "is no key", RestoreOptions{SealKey: long}},
		{"a missing key", plain, "no such file", RestoreOptions{SealKey: filepath.Join(h.base, "none")}},
		{"another passphrase", sealed, "the passphrase is another one", RestoreOptions{
			Passphrase: Passphrase{Ask: func() (auth.Secret, error) { return "wrong", nil }}}},
		{"a passphrase for what is not encrypted", plain, "not encrypted, and a passphrase was given", RestoreOptions{
			SealKey: key, Passphrase: Passphrase{Ask: secret.Ask, Given: true}}},
		{"a key of somebody's", changed(t, plain, func(_ *Manifest, f map[string][]byte) {
			f[seal.KeyFile] = must(os.ReadFile(key))
		}), "not encrypted and has seal.key", RestoreOptions{}},
		{"a relay.toml of somebody's", changed(t, plain, func(_ *Manifest, f map[string][]byte) {
			f[configName] = nil
		}), "not encrypted and has relay.toml", RestoreOptions{SealKey: key}},
		{"a certificate of somebody's", changed(t, plain, func(_ *Manifest, f map[string][]byte) {
			f["tls/self-signed.crt"] = nil
		}), "not encrypted and has tls/self-signed.crt", RestoreOptions{SealKey: key}},
		{"settled by nobody", plain, "not now", RestoreOptions{SealKey: key,
			Settle: func(context.Context, *store.Store, *Manifest) error { return errors.New("not now") }}},
		{"not accepted", plain, "not that one", RestoreOptions{SealKey: key,
			Accept: func(m *Manifest) error { return fmt.Errorf("not that one of %d", m.Messages) }}},
		{"newer format", changed(t, plain, func(m *Manifest, _ map[string][]byte) { m.Format = 2 }),
			"made by a newer postern", RestoreOptions{SealKey: key}},
		{"no store", changed(t, plain, func(_ *Manifest, f map[string][]byte) { delete(f, store.FileName) }),
			"it has no postern.db", RestoreOptions{SealKey: key}},
		{"another database", changed(t, plain, func(_ *Manifest, f map[string][]byte) {
			copy(f[store.FileName][68:], "ELSE")
		}), "no store of postern", RestoreOptions{SealKey: key}},
		{"no database", changed(t, plain, func(_ *Manifest, f map[string][]byte) {
			f[store.FileName] = []byte("rubbish")
		}), "the store in it is", RestoreOptions{SealKey: key}},
		{"a damaged database", changed(t, plain, func(_ *Manifest, f map[string][]byte) {
			b := f[store.FileName]
			for i := 16 << 10; i < 64<<10; i++ {
				b[i] = 0x55
			}
		}), "the store in it", RestoreOptions{SealKey: key}},
		{"another name", changed(t, plain, func(_ *Manifest, f map[string][]byte) { f["../../x"] = []byte("x") }),
			`a part "../../x"`, RestoreOptions{SealKey: key}},
		{"no backup", key, "cut off", RestoreOptions{}},
		{"a file of holes", sparse(t), "in place of the file postern.db", RestoreOptions{SealKey: key}},
		{"more than the disk has", hugeBackup(t), "make room", RestoreOptions{SealKey: key}},
	}
	for _, c := range cases {
		dir, err := h.restore(c.file, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if left := names(t, dir); len(left) != 0 {
			t.Errorf("%s: it has %v", c.name, left)
		}
	}
	if _, err := h.restore(plain, RestoreOptions{SealKey: key, Dir: h.dir}); err == nil ||
		!strings.Contains(err.Error(), "it is not empty") {
		t.Errorf("a directory in use: %v", err)
	}
	h.wantHome(h.dir, "alerts.json", "postern.sock", "tls", "tls/self-signed-rsa.pem", "tls/self-signed.crt",
		"postern.db-wal", "postern.db-shm", "backup.lock")
}

// Root may restore into the directory of the service's user, who may put a link where files are collected: what it
// leads to stays.
func TestRestoreFollowsNoLink(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	dir, elsewhere := filepath.Join(h.base, "new"), filepath.Join(h.base, "elsewhere")
	h.must(errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(elsewhere, 0o700)))
	precious := filepath.Join(elsewhere, store.AlertsName)
	h.must(errors.Join(os.WriteFile(precious, []byte("precious"), 0o600),
		os.Symlink(elsewhere, filepath.Join(dir, "restoring"))))
	key := filepath.Join(h.dir, seal.KeyFile)
	if _, err := h.restore(plain, RestoreOptions{SealKey: key, Dir: dir}); err == nil ||
		!strings.Contains(err.Error(), "restoring is no directory") {
		t.Error(err)
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	if left := names(t, elsewhere); len(left) != 1 {
		t.Errorf("it has %v", left)
	}
}

// What a backup may not be written to.
func TestMakeRefuses(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	before, err := os.ReadFile(plain)
	h.must(err)
	h.must(os.Mkdir(filepath.Join(h.base, "dir"), 0o700))
	h.must(os.WriteFile(filepath.Join(h.base, "b.part"), nil, 0o600))
	h.must(os.Mkdir(filepath.Join(h.base, "busy.part"), 0o700))
	h.must(os.Symlink(h.dir, filepath.Join(h.base, "link")))
	unlock, err := store.Lock(lockOf(filepath.Join(h.base, "busy.part")))
	h.must(err)
	for name, want := range map[string]string{"plain": "--overwrite", "dir": "not a regular file",
		"none/x": "no such file", "data/x": "is in data_dir", "b": "b.part is in the way",
		"busy": "another backup is just being written", "link/x": "is in data_dir"} {
		if _, err := Make(t.Context(), h.options(name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unlock()
	h.make(h.options("busy"))
	if after, err := os.ReadFile(plain); err != nil || !bytes.Equal(before, after) {
		t.Errorf("%s has changed, %v", plain, err)
	}
	o := h.options("plain")
	o.Overwrite = true
	h.add("m2")
	if made, _ := h.make(o); made.Messages != 2 {
		t.Errorf("%+v", made)
	}
	late := h.options("late") // somebody takes the name at the last moment
	late.step = func(what string) {
		if what == "rename" {
			h.must(os.WriteFile(late.File, []byte("another"), 0o600))
		}
	}
	if _, err := Make(t.Context(), late); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if text, err := os.ReadFile(late.File); err != nil || string(text) != "another" {
		t.Errorf("%q, %v", text, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.step = func(what string) {
		if what == "write" {
			cancel()
		}
	}
	if _, err := Make(ctx, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if m, err := Check(t.Context(), must(os.Open(plain)), RestoreOptions{}); err != nil || m.Messages != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// Where the copy would leave the daemon too little room for mail, nothing is begun.
func TestMakeWantsRoom(t *testing.T) {
	h := newHome(t)
	h.must(h.s.Close())
	room := must(disk.Of(h.dir))
	var err error
	h.s, err = store.Open(t.Context(), store.Options{Dir: h.dir, MinFree: room.Free + 1<<40})
	h.must(err)
	for _, file := range []string{"b", Standard} {
		o := h.options("b")
		if file == Standard {
			o.File = Standard
		}
		o.Out = io.Discard
		o.step = func(what string) { t.Errorf("%s: it does %s", file, what) }
		if _, err := Make(t.Context(), o); err == nil || !strings.Contains(err.Error(), "(min_free): make room") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// killAt does what in another process, which is killed at a step. It reports whether there was such a step.
func (h *home) killAt(what string, step int, dir, file string) bool {
	h.Helper()
	cmd := exec.CommandContext(h.Context(), must(os.Executable()))
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s %s", killVariable, what, step, dir, file))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		h.Fatalf("%s: %v\n%s", what, err, out)
	}
	return false
}

// A restore that is killed between any two of its steps leaves a directory that nothing uses, or one that is whole;
// calling it again ends it.
func TestKillRestore(t *testing.T) {
	h := newHome(t)
	o := h.options("sealed")
	o.Passphrase = passphrase
	_, all := h.make(o)
	step := 1
	for ; h.killAt("restore", step, filepath.Join(h.base, strconv.Itoa(step)), all); step++ {
		dir := filepath.Join(h.base, strconv.Itoa(step))
		if step == 1 { // nothing was begun
			continue
		}
		_, err := store.Open(t.Context(), store.Options{Dir: dir, Daemon: true})
		if !errors.Is(err, store.ErrRestoring) {
			t.Errorf("killed at step %d, it is used: %v", step, err)
		}
		if h.killAt("restore", 1<<20, dir, all) {
			t.Fatal("killed at no step")
		}
		h.wantHome(dir, "alerts.json", "tls", "tls/self-signed-rsa.pem", "tls/self-signed.crt")
	}
	if step < 12 {
		t.Errorf("only %d steps", step)
	}
}

// One that was broken off while it placed things stays refused until a restore ends well, and a wrong passphrase
// removes nothing of it.
func TestRestoreAgainFails(t *testing.T) {
	h := newHome(t)
	o := h.options("sealed")
	o.Passphrase = passphrase
	_, all := h.make(o)
	dir := filepath.Join(h.base, "new")
	placed := func() bool { _, err := os.Stat(filepath.Join(dir, "alerts.json")); return err == nil }
	for step := 1; !placed(); step++ {
		h.must(os.RemoveAll(dir))
		if !h.killAt("restore", step, dir, all) {
			t.Fatal("it was not killed with something in its place")
		}
	}
	before := names(t, dir)
	for _, o := range []RestoreOptions{
		{Dir: dir, Passphrase: Passphrase{Ask: func() (auth.Secret, error) { return "wrong", nil }}},
		{Dir: dir, Settle: func(context.Context, *store.Store, *Manifest) error { return errors.New("not now") }},
		{Dir: dir, Settle: func(context.Context, *store.Store, *Manifest) error { return errors.New("not now") }},
	} {
		_, err := h.restore(all, o)
		if after := names(t, dir); err == nil || o.Passphrase.Ask != nil && !slices.Equal(before, after) ||
			o.Settle != nil && (!slices.Equal(after, []string{"restoring", "restoring/placed"}) ||
				!strings.Contains(err.Error(), "or remove "+filepath.Join(dir, "restoring")+" to begin")) {
			t.Errorf("%v: %v", err, after)
		}
		_, err = store.Open(t.Context(), store.Options{Dir: dir, Daemon: true})
		if !errors.Is(err, store.ErrRestoring) {
			t.Errorf("it is used: %v", err)
		}
	}
	_, err := h.restore(all, RestoreOptions{Dir: dir})
	h.must(err)
	h.wantHome(dir, "alerts.json", "tls", "tls/self-signed-rsa.pem", "tls/self-signed.crt")
}

// One that is refused after another was broken off with nothing in its place leaves the directory as empty as it was.
func TestRestoreAgainRefused(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	dir := filepath.Join(h.base, "new")
	h.must(os.MkdirAll(filepath.Join(dir, "restoring", "tls"), 0o700))
	_, err := h.restore(plain, RestoreOptions{Dir: dir})
	if left := names(t, dir); err == nil || !strings.Contains(err.Error(), "--seal-key") || len(left) > 0 {
		t.Errorf("%v; it has %v", err, left)
	}
}

// A backup that is killed leaves no file of its name, or a whole one, and the next is not in its way.
func TestKillMake(t *testing.T) {
	h := newHome(t)
	file, step := filepath.Join(h.base, "made"), 1
	for ; h.killAt("make", step, h.dir, file); step++ {
		from, err := os.Open(file)
		if err == nil {
			_, err = Check(t.Context(), from, RestoreOptions{Passphrase: secret})
			from.Close()
			h.must(errors.Join(err, os.Remove(file)))
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
	if step != 8 {
		t.Errorf("%d steps", step)
	}
	h.must(os.Remove(file))
	if h.killAt("make", 1<<20, h.dir, file) {
		t.Fatal("killed at no step")
	}
	h.nothingLeft()
	dir, err := h.restore(file, RestoreOptions{SealKey: filepath.Join(h.dir, "seal.key")})
	h.must(err)
	h.wantHome(dir, "alerts.json")
}

// What else is in a directory where a restore was broken off is not removed.
func TestRestoreKeepsWhatIsNotItsOwn(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	dir := filepath.Join(h.base, "there")
	h.must(os.MkdirAll(filepath.Join(dir, "restoring"), 0o700))
	h.must(os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600))
	o := RestoreOptions{Dir: dir, SealKey: filepath.Join(h.dir, seal.KeyFile)}
	if _, err := h.restore(plain, o); err == nil || !strings.Contains(err.Error(), "letter.txt is not of it") {
		t.Error(err)
	}
	h.must(os.Remove(filepath.Join(dir, "letter.txt")))
	_, err := h.restore(plain, o)
	h.must(err)
	h.wantHome(dir, "alerts.json")
}

// A store that a command has made in the meantime stays what it is.
func TestRestoreMeetsAStore(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	dir := filepath.Join(h.base, "there")
	there := filepath.Join(dir, store.FileName)
	_, err := h.restore(plain, RestoreOptions{Dir: dir, SealKey: filepath.Join(h.dir, seal.KeyFile),
		Settle: func(context.Context, *store.Store, *Manifest) error {
			return os.WriteFile(there, []byte("another"), 0o600)
		}})
	if err == nil || !strings.Contains(err.Error(), "was empty, and has postern.db, restoring now") {
		t.Error(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{store.FileName}) {
		t.Errorf("it has %v", got)
	}
}

// archive is one that is made by hand.
func archive(entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		text := h.PAXRecords["text"]
		h.PAXRecords = nil
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		_ = w.WriteHeader(&h)
		_, _ = w.Write([]byte(text))
	}
	_ = w.Close()
	return b.Bytes()
}

func entry(name string, kind byte, text string) tar.Header {
	return tar.Header{Name: name, Typeflag: kind, Linkname: "/etc/passwd", Mode: 0o4777,
		PAXRecords: map[string]string{"text": text}}
}

// sparse is a backup with a terabyte of holes in a few octets.
func sparse(t *testing.T) string {
	t.Helper()
	text := string(must(json.Marshal(Manifest{Format: Format,
		Parts: []Part{{Name: store.FileName, Size: 1 << 20, SHA256: strings.Repeat("00", 32)}}})))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	first, holes := entry(manifestName, tar.TypeReg, ""), "1\n1048576\n0\n"
	first.PAXRecords, first.Size = nil, int64(len(text))
	err := w.WriteHeader(&first)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Flush()
	}
	// The writer refuses to write such records: they are those of a file of one hole.
	var records string
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=" + store.FileName,
		"GNU.sparse.realsize=1048576"} {
		n := len(r) + 4 // the length, a space, and the end of the line
		records += fmt.Sprintf("%d %s\n", n, r)
	}
	for _, e := range []struct {
		kind byte
		text string
	}{{tar.TypeXHeader, records}, {tar.TypeReg, holes + strings.Repeat("\x00", 512-len(holes))}} {
		b.Write(rawHeader(e.kind, len(e.text)))
		b.WriteString(e.text)
		b.Write(make([]byte, (512-len(e.text)%512)%512))
	}
	path := filepath.Join(t.TempDir(), "sparse")
	if err := errors.Join(err, os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// rawHeader is one of a tar file, of a kind that the writer does not write.
func rawHeader(kind byte, size int) []byte {
	h := make([]byte, 512)
	copy(h, "postern.db")
	copy(h[100:], "0000600\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", size))
	copy(h[148:], "        ")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// hugeBackup says that it is larger than any disk.
func hugeBackup(t *testing.T) string {
	t.Helper()
	text := string(must(json.Marshal(Manifest{Format: Format,
		Parts: []Part{{Name: store.FileName, Size: maxPart, SHA256: strings.Repeat("00", 32)}}})))
	path := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(path, archive(entry(manifestName, tar.TypeReg, text)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// FuzzRestore: whatever a file has, a restore of it says what is wrong and puts nothing anywhere.
func FuzzRestore(f *testing.F) {
	manifest := func(m Manifest) string { return string(must(json.Marshal(m))) }
	db := []file{{Part: Part{Name: store.FileName}, data: []byte("no database")}}
	if err := db[0].measure(); err != nil {
		f.Fatal(err)
	}
	var whole bytes.Buffer
	if err := writeTar(&whole, &Manifest{Format: Format}, db); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()/2])
	f.Add(append(whole.Bytes(), 'x'))
	sum := strings.Repeat("00", 32)
	for _, parts := range [][]Part{
		{{Name: store.FileName, Size: 1 << 60, SHA256: sum}},
		{{Name: "../../etc/cron.d/x", Size: 1, SHA256: sum}},
		{{Name: store.FileName, Size: -1, SHA256: sum}},
		{db[0].Part, db[0].Part},
		nil,
	} {
		text := manifest(Manifest{Format: Format, Parts: parts})
		f.Add(archive(entry(manifestName, tar.TypeReg, text), entry(store.FileName, tar.TypeReg, "no database"),
			entry(sumName, tar.TypeReg, sumOf([]byte(text)))))
		f.Add(archive(entry(manifestName, tar.TypeReg, text), entry(store.FileName, tar.TypeSymlink, ""),
			entry(sumName, tar.TypeReg, sumOf([]byte(text)))))
		f.Add(archive(entry(manifestName, tar.TypeReg, text), entry("/etc/x", tar.TypeLink, "")))
	}
	f.Add(archive(entry(manifestName, tar.TypeReg, strings.Repeat("x", maxManifest+1))))
	f.Add([]byte(ageHeader + "-> scrypt AAAAAAAAAAAAAAAAAAAAAA 40\nAAAA\n--- AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		begun := false
		plain, err := decrypted(bytes.NewReader(data), secret)
		if err == nil {
			_, err = readArchive(plain, taken, func(p Part, r io.Reader) error {
				if begun = true; !slices.Contains(partNames(), p.Name) {
					t.Errorf("a part %q", p.Name)
				}
				return nil
			})
		}
		if err != nil && !begun { // nothing comes to the disk: that would only take time
			return
		}
		base := t.TempDir()
		dir := filepath.Join(base, "a", "b")
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err = Restore(t.Context(), bytes.NewReader(data), RestoreOptions{Dir: dir, Passphrase: secret,
			Settle: settle})
		if err == nil {
			t.Error("it was restored")
		}
		if left := names(t, base); len(left) > 2 { // a and a/b
			t.Errorf("%v: %v", err, left)
		}
	})
}

// A whole backup of which some octets were changed or are missing is refused, wherever they are.
func TestRestoreOfDamaged(t *testing.T) {
	h := newHome(t)
	_, made := h.make(h.options("plain"))
	whole := must(os.ReadFile(made))
	try := func(what string, data []byte) {
		t.Helper()
		file, dir := filepath.Join(h.base, "damaged"), filepath.Join(t.TempDir(), "data")
		h.must(os.WriteFile(file, data, 0o600))
		_, err := h.restore(file, RestoreOptions{Dir: dir, SealKey: filepath.Join(h.dir, "seal.key")})
		if left := names(t, dir); err == nil || len(left) != 0 {
			t.Errorf("%s: %v, %v", what, err, left)
		}
	}
	try("cut off", whole[:len(whole)/2])
	flipped := bytes.Clone(whole)
	flipped[len(whole)/2] ^= 4
	try("changed", flipped)
	read := func(data []byte) error {
		_, err := readArchive(plain{Reader: bytes.NewReader(data)}, taken, func(Part, io.Reader) error { return nil })
		return err
	}
	h.must(read(whole))
	used := 512 + bytes.IndexByte(whole[512:], 0) // the manifest and its header; zeros behind it mean nothing
	for at := 0; at < len(whole)-2048; at += 1 + at/used*9973 {
		if err := read(whole[:at]); err == nil {
			t.Errorf("cut to %d, it is taken for whole", at)
		}
		if at >= used && at < 4096 || at == 154 || at == 155 { // nor does what ends a header's checksum
			continue
		}
		whole[at] ^= 4
		if err := read(whole); err == nil {
			t.Errorf("changed at %d, it is taken for whole", at)
		}
		whole[at] ^= 4
	}
}

// A directory that another user has left where files are collected is ours alone before anything is in it.
func TestRestoreCollectsAlone(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	dir := filepath.Join(h.base, "new")
	there := filepath.Join(dir, "restoring")
	h.must(errors.Join(os.MkdirAll(there, 0o700), os.Chmod(there, 0o777)))
	if os.Geteuid() == 0 {
		h.must(os.Chown(there, 1000, 1000))
	}
	looked := false
	_, err := h.restore(plain, RestoreOptions{Dir: dir, SealKey: filepath.Join(h.dir, seal.KeyFile),
		step: func(step string) {
			info, err := os.Stat(there)
			if looked = looked || step == "write postern.db"; err != nil || looked && (info.Mode().Perm() != 0o700 ||
				info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid())) {
				h.Fatalf("%s: %v, %v", step, info.Mode(), err)
			}
		}})
	h.must(err)
	if !looked {
		t.Error("nothing was written")
	}
}
