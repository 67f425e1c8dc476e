package store

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/release"
	"postern/internal/testkit"
	"postern/mail"
	"postern/policy"
	"postern/relay/devices"
	"postern/relay/keyring"
	"postern/relay/queue"
	"postern/relay/seal"
	"postern/relay/stats"
	"postern/relay/trace"
	"postern/relay/upstream"
)

// A release has its store in testdata/releases, as it writes it: in a file, with its key, and as a dump of PostgreSQL,
// whose secrets are sealed with releasedSealKey. TestMakeRelease makes them, once, and they never change.
var makeRelease = flag.String("release", "", "make the stored stores of this release: TestMakeRelease")

const (
	releases        = "testdata/releases"
	releasedFile    = "postern.db.gz"
	releasedDump    = "postgres.sql.gz"
	releasedSealKey = "0123456789abcdef0123456789abcdef"
)

// releasedTime is when all in the stored stores happened.
var releasedTime = time.Date(2026, 11, 29, 9, 0, 0, 0, time.UTC)

const (
	releasedPassword = "correct horse battery"
	releasedApp      = "ABCDE23456FGHIJ78942"
)

// fillReleased fills a store with what a relay writes, by the methods that it uses.
func fillReleased(t *testing.T, s *Store) {
	t.Helper()
	ctx, now := t.Context(), releasedTime
	must := noError(t)
	pepper, err := s.Secret(ctx, auth.PepperName, auth.PepperSize)
	must(err)
	fillLogins(t, s, pepper)
	for _, id := range []string{"waits", "held", "large"} {
		must(s.Add(ctx, releasedMessage(id)))
	}
	must(s.AppendEventsNow(ctx, told(300, 3, now)))
	newTestIndexer(s).all(t)
	must(s.AddStatisticsNow(ctx, []stats.Sum{{Cell: stats.Cell{Hour: now.Unix() / 3600, By: stats.Login,
		Key: "anna@example.com"}, Counts: stats.Counts{Messages: 7}}}))
	_, private, err := ed25519.GenerateKey(nil)
	must(err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(err)
	key := testKey("example.com", "r1", "ed25519", keyring.Signing)
	key.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	must(s.AddKeys(ctx, key))
	must(s.ChangeConfiguredKeys(ctx, func([]Key) []Key {
		return []Key{{Domain: "example.org", Selector: "c1", Algorithm: "ed25519", Record: "v=DKIM1; p=x",
			State: keyring.State{Stage: keyring.Signing, Looked: now, Found: keyring.Absent, FoundSince: now}}}
	}))
	_, err = s.SaveGrant(ctx, "office", s.sealer.Seal("postern grant\x00office", []byte("consent")), 0)
	must(err)
	must(s.SaveQuotas(ctx, "office", []upstream.Quota{{Identity: "relay@example.com", Until: now.Add(time.Hour),
		Reply: mail.R(554, "5.2.0", "quota exceeded")}}))
	must(s.ACME().Store(ctx, "a/key", []byte("private")))
	must(s.SaveAlert(ctx, Alert{Event: "upstream", Subject: "office", Since: now, Ended: now.Add(time.Hour),
		Summary: "it takes no mail", Over: "it does again"}))
	must(s.SaveLimits(ctx, now, []policy.State{{Login: "anna@example.com", Limit: "60 messages/minute", Tokens: 12.25,
		At: now, Full: now.Add(1000 * 24 * time.Hour)}}))
	must(s.RememberRecipients(ctx, "anna@example.com", []string{"bob@example.net"}, now))
	fillConsole(t, s)
}

func releasedMessage(id string) queue.NewMessage {
	m := benchMessage(releasedTime, "anna@example.com", false)
	m.ID, m.Received, m.NextAttempt = id, releasedTime, releasedTime
	m.Expires = releasedTime.AddDate(200, 0, 0)
	m.Envelope.From = mail.Address{Local: "anna", Domain: "example.com"}
	m.Author = m.Envelope.From
	m.Recipients = []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "bob", Domain: "example.net"}},
		Status: queue.Pending}}
	m.LeaseOwner, m.LeaseUntil = "", time.Time{}
	content := "From: anna@example.com\r\nTo: bob@example.net\r\nSubject: " + id + "\r\nMessage-ID: <" + id +
		"@example.com>\r\nDate: Sun, 29 Nov 2026 09:00:00 +0000\r\n\r\nIt has waited.\r\n"
	switch id {
	case "held":
		m.Held, m.HoldReason = true, "to be looked at"
	case "large":
		m.Held, m.HoldReason = true, "large"
		content += strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef\r\n", 3*chunkSize/50+1)
	}
	return queue.NewMessage{Message: m, Content: mail.BytesContent(content)}
}

// fillLogins fills in logins and what they prove themselves with.
func fillLogins(t *testing.T, s *Store, pepper []byte) {
	t.Helper()
	ctx, now, far := t.Context(), releasedTime, releasedTime.AddDate(200, 0, 0)
	must := noError(t)
	hash, err := auth.HashChosen(releasedPassword)
	must(err)
	must(s.AddUser(ctx, auth.User{Login: "anna@example.com", Hash: hash, Created: now, Changed: now}))
	must(s.AddUser(ctx, auth.User{Login: "scanner-2", Hash: auth.HashGenerated(pepper, releasedApp), Device: true,
		Generated: true, Created: now, Changed: now}))
	keys, err := auth.DeriveScram(pepper, "anna@example.com", releasedPassword)
	must(err)
	must(s.SetScram(ctx, "anna@example.com", hash, keys))
	must(s.SetCram(ctx, "scanner-2", auth.HashGenerated(pepper, releasedApp), auth.DeriveCram(releasedApp)))
	must(s.AddCertificate(ctx, Certificate{Digest: auth.KeyDigest{1}, Login: "scanner-2", Subject: "CN=scanner-2",
		Added: now}))
	ben := auth.Person{Login: "ben@example.com", Name: "Ben", Source: "office", Subject: "https://issuer 42",
		Seen: now}
	must(putPersonOf(s, ben))
	_, err = s.AddAppPassword(ctx, ben, auth.AppPassword{ID: "phone1", Login: ben.Login, Name: "phone",
		Hash: auth.HashGenerated(pepper, releasedApp[:16]), Created: now, Expires: far}, 10, now)
	must(err)
	must(s.AddPersonSession(ctx, PersonSession{Digest: [32]byte{1}, Login: ben.Login, Subject: ben.Subject,
		Source: ben.Source, Created: now, Used: now}, now, now))
	_, err = s.LockLogin(ctx, auth.LoginLock{Login: "carl@example.com", Reason: "left", By: "anna", At: now})
	must(err)
	for _, l := range []Lockout{s.LoginLockout(), s.ConsoleLockout()} {
		must(l.Save(ctx, now, auth.Unsaved{Places: []auth.Place{{Digest: [16]byte{1}, At: now}},
			Locks: []auth.Lock{{Login: "anna@example.com", Client: netip.MustParsePrefix("192.0.2.1/32"),
				Until: far, Failures: 10}}}))
	}
	must(s.Learn(ctx, devices.Learning{Listener: "devices", Network: netip.MustParsePrefix("10.0.5.0/24"), Began: now,
		Until: now.Add(time.Hour), By: "anna"}))
	must(s.SetPlace(ctx, devices.Place{Listener: "devices", Address: netip.MustParseAddr("10.0.5.7"),
		Login: "scanner-2"}))
	must(s.ForgetDevice(ctx, devices.Forgotten{Listener: "devices", Address: netip.MustParseAddr("10.0.5.8"), At: now}))
}

// fillConsole fills in who may into console and API, and what they did.
func fillConsole(t *testing.T, s *Store) {
	t.Helper()
	ctx, now, far := t.Context(), releasedTime, releasedTime.AddDate(200, 0, 0)
	must := noError(t)
	putUser(t, s, ConsoleUser{Name: "anna", Role: "admin", Hash: "one", TOTP: "SECRETSECRETSECRET", Created: now})
	anna, err := s.ConsoleUser(ctx, "anna")
	must(err)
	must(s.AddConsoleInvite(ctx, ConsoleInvite{Digest: [32]byte{2}, Name: "anna", Expires: far}, now))
	must(s.AddConsoleSession(ctx, ConsoleSession{Digest: [32]byte{3}, Name: "anna", Generation: anna.Generation,
		Created: now, Used: now, Client: "192.0.2.1"}, nil, now, now))
	must(s.AddToken(ctx, APIToken{Digest: [32]byte{4}, Name: "monitoring", Scopes: []string{"status:read"},
		Created: now, CreatedBy: "anna"}))
	must(s.AppendAudit(ctx, AuditEntry{Time: now, Actor: "anna", Operation: "user.add", Outcome: AuditDone}))
	begin(t, s, now, 1)
	must(s.FinishAnswer(ctx, [32]byte{1}, 201, []byte("created")))
	_, err = s.EndFlow(ctx, "flow", now, far)
	must(err)
	_, err = s.Keep(ctx, "anna", now, far, []byte("passwords"))
	must(err)
}

// wantReleased looks at what fillReleased has filled in.
func wantReleased(t *testing.T, s *Store) {
	t.Helper()
	wantReleasedMail(t, s)
	ctx := t.Context()
	pepper, err := s.Secret(ctx, auth.PepperName, auth.PepperSize)
	if err != nil {
		t.Fatal(err)
	}
	source := auth.NewStoreSource(s, pepper)
	for login, password := range map[string]string{"anna@example.com": releasedPassword, "scanner-2": releasedApp} {
		if id, err := source.Verify(ctx, login, auth.Prepare(password)); err != nil || id.Login != login {
			t.Errorf("%s: %+v, %v", login, id, err)
		}
		if _, err := source.Verify(ctx, login, auth.Prepare(password+"x")); err == nil {
			t.Errorf("%s: any password", login)
		}
	}
	if _, keys, err := s.ScramUser(ctx, "anna@example.com"); err != nil || keys.IsZero() {
		t.Errorf("SCRAM: %v", err)
	}
	if _, keys, err := s.CramUser(ctx, "scanner-2"); err != nil || keys.IsZero() {
		t.Errorf("CRAM: %v", err)
	}
	if login, err := s.LoginOfKey(ctx, auth.KeyDigest{1}); err != nil || login != "scanner-2" {
		t.Errorf("certificate: %q, %v", login, err)
	}
	ben, app, err := s.AppPassword(ctx, auth.HashGenerated(pepper, releasedApp[:16]))
	if err != nil || ben.Name != "Ben" || app.Name != "phone" {
		t.Errorf("%+v, %+v, %v", ben, app, err)
	}
	if l, err := s.LoginLock(ctx, "carl@example.com"); err != nil || l.Reason != "left" {
		t.Errorf("%+v, %v", l, err)
	}
	if locks, err := s.Lockouts(ctx, releasedTime); err != nil || len(locks) != 1 {
		t.Errorf("%+v, %v", locks, err)
	}
	if d, err := s.KnownDevices(ctx); err != nil || len(d.Places) != 1 || d.Places[0].Login != "scanner-2" ||
		len(d.Forgotten) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	wantReleasedConsole(t, s)
	wantReleasedKeys(t, s)
}

func wantReleasedMail(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	for _, id := range []string{"waits", "held", "large"} {
		want := releasedMessage(id)
		m, err := s.Get(ctx, id)
		if err != nil || m.Held != (id != "waits") || m.Author != want.Message.Author ||
			!m.Received.Equal(releasedTime) || len(m.Recipients) != 1 ||
			m.Recipients[0].To.String() != "bob@example.net" {
			t.Errorf("%s: %+v, %v", id, m, err)
			continue
		}
		c, err := s.Content(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, want.Content.(mail.BytesContent)) {
			t.Errorf("%s: %d octets, %v", id, len(b), err)
		}
	}
	if st, err := s.Stats(ctx); err != nil || st.Messages != 3 || st.Held != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	if due, _, err := s.Due(ctx, releasedTime.Add(time.Hour), "", 0, 0); err != nil || len(due) != 1 {
		t.Errorf("%d are due, %v", len(due), err)
	}
	if events, err := s.Events(ctx, trace.Query{Limit: 1000}); err != nil || len(events) != 400 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if a, err := s.Search(ctx, trace.Search{Words: "user7@example.com example7.net"}); err != nil || len(a.Found) == 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if kept, counted := tallied(t, s); kept != counted {
		t.Errorf("%+v are there, counted are %+v", kept, counted)
	}
	q := stats.Query{Since: releasedTime.Add(-time.Hour), Until: releasedTime.Add(time.Hour), By: stats.Login}
	if table, err := s.Statistics(ctx, q, releasedTime.Add(time.Hour)); err != nil || table.Total.Messages != 7 {
		t.Errorf("%+v, %v", table, err)
	}
}

func wantReleasedConsole(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	if u, err := s.ConsoleUser(ctx, "anna"); err != nil || u.TOTP != "SECRETSECRETSECRET" || u.Role != "admin" {
		t.Errorf("%+v, %v", u, err)
	}
	if c, _, err := s.ConsoleSession(ctx, [32]byte{3}); err != nil || c.Name != "anna" {
		t.Errorf("%+v, %v", c, err)
	}
	if k, err := s.Token(ctx, [32]byte{4}); err != nil || k.Name != "monitoring" {
		t.Errorf("%+v, %v", k, err)
	}
	if i, err := s.ConsoleInvite(ctx, [32]byte{2}); err != nil || i.Name != "anna" {
		t.Errorf("%+v, %v", i, err)
	}
	if all, err := s.Audit(ctx, AuditQuery{Limit: 10}); err != nil || len(all) != 1 || all[0].Actor != "anna" {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := s.Alerts(ctx, AlertQuery{Limit: 10}); err != nil || len(all) != 1 || all[0].Over != "it does again" {
		t.Errorf("%+v, %v", all, err)
	}
	if a := begin(t, s, releasedTime, 1); a == nil || string(a.Body) != "created" {
		t.Errorf("%+v", a)
	}
}

func wantReleasedKeys(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	if keys, err := s.Keys(ctx); err != nil || len(keys) != 1 || keys[0].Stage != keyring.Signing ||
		!strings.HasPrefix(keys[0].PEM, "-----BEGIN PRIVATE KEY-----\n") {
		t.Errorf("%+v, %v", keys, err)
	}
	if keys, err := s.ConfiguredKeys(ctx); err != nil || len(keys) != 1 || keys[0].Selector != "c1" {
		t.Errorf("%+v, %v", keys, err)
	}
	sealedGrant, _, err := s.LoadGrant(ctx, "office")
	if plain, err2 := s.sealer.Open("postern grant\x00office", sealedGrant); err != nil || string(plain) != "consent" {
		t.Errorf("%q, %v, %v", plain, err, err2)
	}
	if q, err := s.LoadQuotas(ctx, "office"); err != nil || len(q) != 1 || q[0].Reply.Text != "quota exceeded" {
		t.Errorf("%+v, %v", q, err)
	}
	if b, err := s.ACME().Load(ctx, "a/key"); err != nil || string(b) != "private" {
		t.Errorf("%q, %v", b, err)
	}
	if states, err := s.LoadLimits(ctx, releasedTime); err != nil || len(states) != 1 || states[0].Tokens != 12.25 {
		t.Errorf("%+v, %v", states, err)
	}
	if fresh, err := s.NewRecipients(ctx, "anna@example.com", []string{"bob@example.net"}); err != nil || fresh != 0 {
		t.Errorf("%d, %v", fresh, err)
	}
}

// whileUnderWay are tables that have rows only while something is under way.
var whileUnderWay = []string{"store_move", "acme_lock", "search_late", "alert_told", "upstream_shared", "privacy_state"}

// TestMakeRelease makes what a release leaves for all later ones to be tested with:
//
//	go test ./relay/store -run TestMakeRelease -release 0.9.0
func TestMakeRelease(t *testing.T) {
	if *makeRelease == "" {
		t.Skip("only at a release, with -release")
	}
	if *makeRelease != release.Number() {
		t.Fatalf("this is %s: make the release in CHANGELOG.md first", release.Number())
	}
	to := filepath.Join(releases, *makeRelease)
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	with(t, Options{Dir: dir}, func(s *Store) {
		fillReleased(t, s)
		const tables = "SELECT name FROM sqlite_schema WHERE type = 'table'"
		everyTable(t, s, must(readAll(t.Context(), s.readers, text, tables))(t))
	})
	raw(t, filepath.Join(dir, FileName), "VACUUM")
	zip(t, filepath.Join(to, releasedFile), must(os.ReadFile(filepath.Join(dir, FileName)))(t))
	if err := os.WriteFile(filepath.Join(to, seal.KeyFile), must(os.ReadFile(filepath.Join(dir,
		seal.KeyFile)))(t), 0o644); err != nil {
		t.Fatal(err)
	}
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	with(t, releasedServer(t, url), func(s *Store) {
		fillReleased(t, s)
		var names []string
		for _, row := range testkit.SQL(t, url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") {
			names = append(names, row[0])
		}
		everyTable(t, s, names)
	})
	dump, err := exec.Command("pg_dump", "--no-owner", "--no-privileges", "--inserts", "--dbname="+url).Output()
	if err != nil {
		t.Fatal(err)
	}
	zip(t, filepath.Join(to, releasedDump), dump)
}

// noError makes an error the end of a test.
func noError(t *testing.T) func(error) {
	return func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// must is noError with a value.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func releasedServer(t *testing.T, url string) Options {
	t.Helper()
	o := ofServer(t, url, "node-1", true)
	o.SealKey = releasedSealKey
	return o
}

// everyTable fails where one has no rows.
func everyTable(t *testing.T, s *Store, names []string) {
	t.Helper()
	for _, name := range names {
		rows := must(readAll(t.Context(), s.readers, text, "SELECT 'x' FROM "+name+" LIMIT 1"))(t)
		if len(rows) == 0 && !slices.Contains(whileUnderWay, name) {
			t.Errorf("%s is empty: fill it in fillReleased", name)
		}
	}
}

func zip(t *testing.T, path string, data []byte) {
	t.Helper()
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, err := w.Write(data)
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = os.WriteFile(path, b.Bytes(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// released names the releases whose stores are kept.
func released(t *testing.T) (numbers []string) {
	t.Helper()
	for _, e := range must(os.ReadDir(releases))(t) {
		numbers = append(numbers, e.Name())
	}
	return numbers
}

// Each release has left its stores, and the one that is made now as well: what is not released yet may change them.
func TestEveryReleaseIsKept(t *testing.T) {
	var want []string
	for _, r := range release.History() {
		if r.Number != "" {
			want = append(want, r.Number)
		}
	}
	slices.Sort(want)
	if got := released(t); !slices.Equal(got, want) {
		t.Errorf("%s has %q, CHANGELOG.md %q: go test ./relay/store -run TestMakeRelease -release NUMBER, see "+
			"docs/decisions/0057-releases.md", releases, got, want)
	}
}

// Releases that differ in the third number alone have the same schema: one may go back from one to the other, and nodes
// may differ.
func TestThirdNumberKeepsTheSchema(t *testing.T) {
	fileOnly(t)
	schemas := map[string]int{}
	for _, number := range released(t) {
		path := filepath.Join(t.TempDir(), FileName)
		data := testkit.Unzip(t, filepath.Join(releases, number, releasedFile))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		conn := must(openConn(path))(t)
		found, err := readOrigin(conn)
		if err := errors.Join(err, conn.Close()); err != nil || found.program != "v"+number {
			t.Errorf("%s: written by %v, %v", number, found, err)
		}
		schemas[number] = found.schema
	}
	if left, is := schemas[release.Number()]; is && left != len(migrations) {
		t.Errorf("%s has left schema %d, and this is %d: run scripts/release again", release.Number(), left,
			len(migrations))
	}
	if torn := tornSchemas(schemas); torn != "" {
		t.Errorf("%s have different schemas: the second number has to rise", torn)
	}
	if torn := tornSchemas(map[string]int{"0.9.0": 33, "0.9.1": 34, "0.10.0": 34}); torn != "0.9.x" {
		t.Errorf("%q", torn)
	}
}

func tornSchemas(schemas map[string]int) (torn string) {
	of := map[string]int{}
	for number, schema := range schemas {
		minor := number[:max(strings.LastIndex(number, "."), 0)]
		if before, seen := of[minor]; seen && before != schema {
			torn = minor + ".x"
		}
		of[minor] = schema
	}
	return torn
}

// What a release has stored, this program reads, all of it, and its schema becomes the one of a new store.
func TestReleasedFiles(t *testing.T) {
	fileOnly(t)
	fresh := t.TempDir()
	with(t, Options{Dir: fresh}, func(*Store) {})
	want := fileSchema(t, fresh)
	for _, number := range released(t) {
		t.Run(number, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range map[string][]byte{
				FileName:     testkit.Unzip(t, filepath.Join(releases, number, releasedFile)),
				seal.KeyFile: must(os.ReadFile(filepath.Join(releases, number, seal.KeyFile)))(t),
			} {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			with(t, Options{Dir: dir}, func(s *Store) { wantReleased(t, s) })
			if got := fileSchema(t, dir); got != want {
				t.Errorf("the schema is not that of a new store\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Of every version of the schema from the first on, those before the first release as well, the same becomes.
func TestEverySchemaBecomesTheSame(t *testing.T) {
	fileOnly(t)
	whole := migrations
	t.Cleanup(func() { migrations = whole })
	fresh := t.TempDir()
	with(t, Options{Dir: fresh}, func(*Store) {})
	want := fileSchema(t, fresh)
	for n := 1; n < len(whole); n++ {
		path := filepath.Join(t.TempDir(), FileName)
		if err := prepareFile(path); err != nil {
			t.Fatal(err)
		}
		migrations = whole[:n:n]
		for range 2 {
			conn := must(openConn(path))(t)
			_, err := prepareSchema(conn, func(origin) error { return nil })
			if err := errors.Join(err, conn.Close()); err != nil {
				t.Fatalf("from %d: %v", n, err)
			}
			migrations = whole
		}
		if got := fileSchema(t, filepath.Dir(path)); got != want {
			t.Errorf("from %d\n%s\nwant\n%s", n, got, want)
		}
	}
}

func TestReleasedDatabases(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	fresh := pg.NewDatabase(t)
	with(t, releasedServer(t, fresh), func(*Store) {})
	want := serverSchema(t, fresh)
	for _, number := range released(t) {
		t.Run(number, func(t *testing.T) {
			url := pg.NewDatabase(t)
			testkit.Restore(t, url, testkit.Unzip(t, filepath.Join(releases, number, releasedDump)))
			with(t, releasedServer(t, url), func(s *Store) { wantReleased(t, s) })
			if got := serverSchema(t, url); got != want {
				t.Errorf("the schema is not that of a new store\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// fileSchema is all that a file has of tables, indexes and views.
func fileSchema(t *testing.T, dir string) string {
	t.Helper()
	conn := must(openConn(filepath.Join(dir, FileName)))(t)
	defer conn.Close()
	return strings.Join(must(list(conn, text, "SELECT sql FROM sqlite_schema WHERE sql <> '' ORDER BY name"))(t), "\n")
}

// serverSchema is all that a database has of columns, indexes and views, but for the parts of tables.
func serverSchema(t *testing.T, url string) string {
	t.Helper()
	var all []string
	const noPart = "(SELECT relname FROM pg_class WHERE NOT relispartition)"
	for _, query := range []string{
		`SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, is_nullable, column_default)
			FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN
			` + noPart + ` ORDER BY 1`,
		`SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename IN ` + noPart + ` ORDER BY 1`,
		`SELECT concat_ws(' ', relname, relkind, reloptions) FROM pg_class WHERE relnamespace = 'public'::regnamespace
			AND NOT relispartition ORDER BY 1`,
		`SELECT definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1`,
	} {
		for _, row := range testkit.SQL(t, url, query) {
			all = append(all, fmt.Sprint(row))
		}
	}
	return strings.Join(all, "\n")
}
