//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/bench/ledger"
	"postern/bench/load"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/queue"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// stampOf is the number of a message.
func stampOf(t *testing.T, data []byte) int {
	t.Helper()
	s, err := ledger.ParseStamp(data)
	if err != nil {
		t.Fatalf("%v: %.200q", err, data)
	}
	return s.Seq
}

// known is what a backup knows of numbered messages.
type known struct {
	pending map[int]bool // they wait
	sent    map[string]bool
	noted   int // that wait, although an upstream has them: the journal says so
}

// knownBy reads what was restored, before anything has used it.
func knownBy(t *testing.T, dir string) known {
	t.Helper()
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k := known{pending: map[int]bool{}, sent: map[string]bool{}}
	noted := map[string]bool{}
	j, err := relaystore.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := j.Notes()
	if err := errors.Join(err, j.Close()); err != nil {
		t.Fatal(err)
	}
	for _, n := range notes {
		noted[n.ID] = true
	}
	all, err := s.List(t.Context(), queue.Filter{Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if noted[m.ID] {
			k.noted++
			continue
		}
		k.pending[seqOf(t, s, m.ID)] = true
	}
	events, err := s.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Delivered}, Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		k.sent[e.ID] = true
	}
	return k
}

func seqOf(t *testing.T, s *relaystore.Store, id string) int {
	t.Helper()
	c, err := s.Content(t.Context(), id)
	var r io.ReadCloser
	var data []byte
	if err == nil {
		r, err = c.Open()
	}
	if err == nil {
		data, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return stampOf(t, data)
}

// TestBackupUnderLoad: a backup is made while mail comes and goes, the relay and its disk die, and what was restored
// elsewhere sends everything that waited at the backup, and nothing that the backup knew as sent.
func TestBackupUnderLoad(t *testing.T) {
	s := newSiege(t, "0s", nil, "max_connections = 4\n")
	s.sink.SetKeep(1 << 20)
	s.sink.SetDelay(3 * time.Millisecond) // so that mail comes faster than it goes
	p := s.start()
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	var report *load.Report
	var failed error
	var loading sync.WaitGroup
	loading.Go(func() { report, failed = load.Run(ctx, s.loadConfig("backup", 1<<20)) })
	arrived := func(n int64) func() bool { return func() bool { return s.sink.Stats().Messages >= n } }
	s.until("mail flows, and the trace says so", func() bool {
		return strings.Count(s.postern("", "trace", "--kind", "delivered", "--limit", "50", "--json"), "\n") == 50
	})
	file := filepath.Join(s.dir, "office.backup")
	before := s.sink.Stats().Messages
	out := s.postern("", "backup", file)
	during := s.sink.Stats().Messages - before
	s.until("mail flows still", arrived(s.sink.Stats().Messages+50))
	p.Kill()
	enough()
	loading.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	sent := s.sink.Messages()

	s.config = elsewhere(t, s.config)
	key := filepath.Join(s.dir, "data", "seal.key")
	refused := testkit.Run(t, "", "restore", file, "--config", s.config, "--seal-key", key)
	if refused.OK || !strings.Contains(refused.Text, "say with --queue what becomes of it; nothing was changed") {
		t.Fatalf("a queue is restored as nobody said: %s", refused.Text)
	}
	s.postern("", "restore", file, "--queue", "keep", "--seal-key", key)
	k := knownBy(t, filepath.Join(s.dir, "new"))
	p = s.start()
	s.until("an empty queue", func() bool {
		testkit.Run(t, "", "queue", "retry", "--all", "--config", s.config)
		return strings.Contains(s.postern("", "queue", "list"), "The queue is empty.")
	})
	p.Stop()

	again := map[int]int{}
	for _, m := range s.sink.Messages()[len(sent):] {
		again[stampOf(t, m.Data)]++
	}
	twice := 0
	for seq, n := range again {
		if n != 1 || !k.pending[seq] {
			t.Errorf("message %d was sent %d times by what was restored; the backup had it queued: %v", seq, n,
				k.pending[seq])
		}
	}
	for _, m := range sent {
		if again[stampOf(t, m.Data)] > 0 {
			twice++
		}
	}
	for seq := range k.pending {
		if again[seq] == 0 {
			t.Errorf("message %d waited at the backup, and was not sent", seq)
		}
	}
	t.Logf("%s%d arrived during the backup, %d before the end; the backup knew %d as sent, %d as queued, %d of which "+
		"were noted as taken; %d were sent since the backup and so came twice; %d accepted", out, during, len(sent),
		len(k.sent), len(k.pending)+k.noted, k.noted, twice, report.Accepted.Len())
	if len(k.sent) < 20 || len(k.pending) < 2 {
		t.Errorf("%d sent and %d pending prove nothing", len(k.sent), len(k.pending))
	}
}

// What an upstream has taken is not sent again by a restore, though the outcome was never committed: the note of it
// comes with the backup.
func TestBackupKnowsNotes(t *testing.T) {
	s := newSiege(t, "0s", nil, "")
	s.sink.SetKeep(10)
	data := filepath.Join(s.dir, "data")
	live, err := relaystore.Open(t.Context(), relaystore.Options{Dir: data})
	if err != nil {
		t.Fatal(err)
	}
	anna, bob := mail.Address{Local: "anna", Domain: "example.com"}, mail.Address{Local: "bob", Domain: "example.net"}
	for _, id := range []string{"noted", "waits"} {
		m := &queue.Message{ID: id, Login: "anna@example.com", Received: time.Now(), Expires: time.Now().Add(time.Hour),
			Envelope:   mail.Envelope{From: anna},
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: bob}, Status: queue.Pending}}}
		content := mail.BytesContent("From: anna@example.com\r\nSubject: " + id + "\r\n\r\nx\r\n")
		if err := live.Add(t.Context(), queue.NewMessage{Message: m, Content: content}); err != nil {
			t.Fatal(err)
		}
	}
	j, err := relaystore.OpenJournal(data)
	if err == nil {
		_, err = j.Note(queue.Note{ID: "noted", Attempt: 1, Results: []mail.Result{{Class: mail.Delivered,
			Upstream: "office", Reply: mail.Reply{Code: 250, Text: "taken before the backup"}}}})
		err = errors.Join(err, j.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "b")
	s.postern("", "backup", file)
	if err := live.Close(); err != nil {
		t.Fatal(err)
	}
	s.config = elsewhere(t, s.config)
	s.postern("", "restore", file, "--queue", "keep", "--seal-key", filepath.Join(data, "seal.key"))
	p := s.start()
	s.until("an empty queue", func() bool {
		return strings.Contains(s.postern("", "queue", "list"), "The queue is empty.")
	})
	p.Stop()
	got := s.sink.Messages()
	if len(got) != 1 || !bytes.Contains(got[0].Data, []byte("Subject: waits")) {
		t.Errorf("%d messages came: %+v", len(got), got)
	}
	if said := s.postern("", "trace", "noted"); !strings.Contains(said, "taken before the backup") {
		t.Error(said)
	}
}

// elsewhere is a copy of a configuration with another data_dir, as on another machine.
func elsewhere(t *testing.T, config string) (path string) {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(filepath.Dir(config), "relay.new.toml")
	text = bytes.Replace(text, []byte(`data_dir = "data"`), []byte(`data_dir = "new"`), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What a backup has waits, held, or goes with a word in the trace, as was said.
func TestRestoreHoldsOrDrops(t *testing.T) {
	l := newCommandLine(t)
	to := mail.Address{Local: "bob", Domain: "example.net"}
	m := &queue.Message{ID: "m1", Login: "anna", Received: time.Now(), Expires: time.Now().Add(time.Hour),
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: to}, Status: queue.Pending}}}
	err := l.store.Add(t.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent("x")})
	if err != nil {
		t.Fatal(err)
	}
	has := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("no %q in\n%s", text, out)
			}
		}
	}
	file, key := filepath.Join(l.dir, "b"), filepath.Join(l.dir, "data", "seal.key")
	has(l.ok("backup", file), "with 1 message (1 B) in the queue", "a restore needs "+key+" too")
	has(l.ok("backup", file, "--overwrite", "--json"), `"messages": 1,`, `"key": "`+key)
	has(l.ok("restore", file, "--check", "--seal-key", key), "b is whole: of relay.example.com",
		"seal.key opens what is sealed in it")
	has(l.ok("restore", file, "--check", "--json"), `"messages": 1,`)
	if out, _, err := l.run("restore", file, "--print-config"); err == nil || out != "" {
		t.Errorf("%q, %v", out, err)
	}
	l.config = elsewhere(t, l.config)
	if _, _, err := l.run("backup", file+"2"); err == nil || !strings.Contains(err.Error(), "there is no store at") {
		t.Errorf("a backup of nothing: %v", err)
	}
	_, _, err = l.run("restore", file, "--seal-key", key)
	if _, is := errors.AsType[*usageError](err); !is ||
		!strings.Contains(err.Error(), "it has queued mail: 1 messages") {
		t.Error(err)
	}
	has(l.ok("restore", file, "--queue", "hold", "--seal-key", key), "1 message in the queue are held")
	has(l.ok("queue", "show", "m1"), "restored from the backup of ")
	has(l.ok("audit"), "1 messages, of which 1 were held and 0 dropped")
	if err := os.RemoveAll(filepath.Join(l.dir, "new")); err != nil {
		t.Fatal(err)
	}
	has(l.ok("restore", file, "--queue", "drop", "--seal-key", key, "--json"), `"dropped": 1`, `"queue": "drop"`,
		`"data_dir": "`+filepath.Join(l.dir, "new"))
	has(l.ok("trace", "m1"), "with --queue drop", "bob@example.net")
	has(l.ok("queue", "list"), "The queue is empty.")
}

// With a passphrase there is one file that has everything, relay.toml too.
func TestBackupWithPassphrase(t *testing.T) {
	l := newCommandLine(t)
	l.ok("user", "add", "anna@example.com")
	right, wrong := l.file("pw", "a passphrase\nand more\n"), l.file("wrong", "\n")
	file := filepath.Join(l.dir, "b")
	backup := func(args ...string) error {
		root := rootCommandOf(&app{etc: t.TempDir(), work: 10})
		root.SetIn(strings.NewReader(""))
		root.SetOut(io.Discard)
		root.SetArgs(append([]string{"backup", file, "--config", l.config}, args...))
		return root.ExecuteContext(t.Context())
	}
	if err := backup("--passphrase-file", wrong); err == nil ||
		!strings.Contains(err.Error(), "its first line is empty") {
		t.Error(err)
	}
	if err := backup("--passphrase"); err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Error(err)
	}
	if err := backup("--passphrase-file", right); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.run("restore", file, "--check"); err == nil ||
		!strings.Contains(err.Error(), "it is encrypted: name") {
		t.Error(err)
	}
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.ok("restore", file, "--print-config", "--passphrase-file", right); got != string(text) {
		t.Errorf("%q", got)
	}
	out := filepath.Join(l.dir, "out.toml")
	l.ok("restore", file, "--config-out", out, "--passphrase-file", right)
	got, err := os.ReadFile(out)
	info, statErr := os.Stat(out)
	if err := errors.Join(err, statErr); err != nil || !bytes.Equal(got, text) || info.Mode().Perm()&0o037 != 0 {
		t.Errorf("%q, %v, %v", got, info, err)
	}
	if _, _, err := l.run("restore", file, "--config-out", l.config, "--passphrase-file", right); err == nil ||
		!strings.Contains(err.Error(), "is there already") {
		t.Error(err)
	}
	l.config = elsewhere(t, l.config)
	l.ok("restore", file, "--passphrase-file", right)
	if out := l.ok("user", "list"); !strings.Contains(out, "anna@example.com") {
		t.Error(out)
	}
}

// With the store at PostgreSQL both say what to do instead.
func TestBackupOfPostgreSQL(t *testing.T) {
	l := newCommandLine(t)
	file := filepath.Join(l.dir, "b")
	l.ok("backup", file)
	l.config = l.serverConfig(testkit.SharedPostgreSQL(t).NewDatabase(t))
	for want, args := range map[string][]string{"pg_dump": {"backup", file + "2"},
		"postern store migrate": {"restore", file}} {
		if _, _, err := l.run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("postern %q: %v", args, err)
		}
	}
}

// A backup into a pipe that nobody reads any more ends with a word, and leaves no copy in clear.
func TestBackupIntoBrokenPipe(t *testing.T) {
	l := newCommandLine(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testkit.Binary(t), "backup", "-", "--config", l.config)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &said
	err = errors.Join(cmd.Run(), w.Close())
	exit, is := errors.AsType[*exec.ExitError](err)
	if !is || exit.ExitCode() != exitNo || !strings.Contains(said.String(), "write the backup") {
		t.Errorf("%v: %s", err, said.String())
	}
	if _, err := os.Stat(filepath.Join(l.dir, "data", "backup.part")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy is left: %v", err)
	}
}

// The guide for the worst day names commands and flags that there are.
func TestDisasterGuideNamesCommands(t *testing.T) {
	text, err := os.ReadFile("../../docs/disaster.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, block := range regexp.MustCompile("(?s) *```\n(.*?)```").FindAllSubmatch(text, -1) {
		for line := range strings.Lines(string(block[1])) {
			line, _, _ = strings.Cut(strings.ReplaceAll(line, "$(date +%F)", "today"), "#")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "postern" {
				continue
			}
			if i := slices.IndexFunc(words, func(w string) bool { return w == ">" || w == "|" }); i > 0 {
				words = words[:i]
			}
			seen++
			cmd, rest, err := rootCommand().Find(words[1:])
			if err != nil || !cmd.Runnable() || cmd.ParseFlags(rest) != nil ||
				cmd.ValidateArgs(cmd.Flags().Args()) != nil {
				t.Errorf("%q: %v, %v", line, err, cmd.ParseFlags(rest))
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d commands only", seen)
	}
}

// Wrong usage is told as that, before anything is done.
func TestBackupUsage(t *testing.T) {
	l := newCommandLine(t)
	for _, line := range []string{"backup", "backup a b", "backup - --json",
		"backup x --passphrase --passphrase-file y", "restore", "restore x --queue maybe",
		"restore x --check --print-config", "restore x --check --config-out y"} {
		_, errs, err := l.run(strings.Fields(line)...)
		if _, is := errors.AsType[*usageError](err); !is {
			t.Errorf("postern %s: %v\n%s", line, err, errs)
		}
	}
}
