package operate_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // looks at the file, and disturbs it, behind the store's back

	"postern/admin/access"
	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/keyring"
	"postern/relay/queue"
	"postern/relay/store"
	"postern/relay/trace"
)

// noDNS answers that there is no record.
type noDNS struct{ asked atomic.Int64 }

func (d *noDNS) DKIM(context.Context, string, string) (keyring.Answer, error) {
	d.asked.Add(1)
	return keyring.Answer{}, nil
}

// office is a store with something of everything, and all that works on it.
type office struct {
	*operate.Operations
	*testing.T
	access *access.Access
	store  *store.Store
	file   *sql.DB
	world  *dnstest.World
	dns    *noDNS
	posted atomic.Int64 // alerts
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, dns: &noDNS{}}
	dir := t.TempDir()
	var err error
	o.store, err = store.Open(t.Context(), store.Options{Dir: dir})
	o.must(err)
	t.Cleanup(func() { o.must(o.store.Close()) })
	o.file, err = sql.Open("sqlite", filepath.Join(dir, store.FileName)+"?_pragma=busy_timeout(10000)")
	o.must(err)
	t.Cleanup(func() { o.must(o.file.Close()) })
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { o.posted.Add(1) }))
	t.Cleanup(hook.Close)
	c := config.Parse(filepath.Join(dir, "relay.toml"), fmt.Appendf(nil, officeTOML, hook.URL))
	_ = c.Validate() // there are no upstreams; it also reads the URL
	o.Operations = operate.New(operate.Options{Config: func() *config.Config { return c }, Store: o.store, DNS: o.dns})
	o.access, err = access.New(t.Context(), access.Options{Store: o.store,
		URL: &url.URL{Scheme: "https", Host: "relay.example.com"}})
	o.must(err)
	o.fill()
	return o
}

func (o *office) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// officeTOML has one of each thing that operations work on; %q is where the alerts go.
const officeTOML = `hostname = "relay.example.com"
[tls.acme]
directory_url = "https://127.0.0.1:1/dir"
challenges = ["dns-01"]
[tls.acme.acmedns]
full_domain = "d420.auth.example.com"
url = "https://127.0.0.1:1"
password = "p"
username = "u"
[[listener]]
name = "devices"
address = "127.0.0.1:0"
profile = "appliance"
networks = ["10.0.5.0/24"]
[[policy]]
senders = ["*@example.com"]
[[alert]]
url = %q
`

var root = operate.Actor{Name: "root", Channel: operate.CommandLine}

// fill gives each operation something to work on.
func (o *office) fill() {
	o.Helper()
	ctx, now := o.Context(), time.Now()
	for _, id := range []string{"M1", "M2"} {
		m := &queue.Message{ID: id, Login: "ben", Received: now, Expires: now.Add(time.Hour),
			NextAttempt: now.Add(time.Hour), Held: id == "M1"}
		m.Envelope.From, _ = mail.ParseAddress("ben@example.com")
		for _, s := range []queue.Status{queue.Pending, queue.Failed} {
			to, _ := mail.ParseAddress("bob@example.net")
			m.Recipients = append(m.Recipients, queue.Recipient{Recipient: mail.Recipient{To: to}, Status: s})
		}
		o.must(o.store.Add(ctx, queue.NewMessage{Message: m,
			Content: mail.BytesContent([]byte("Subject: hello\r\n\r\nbody\r\n"))}))
	}
	o.must(o.store.AddUser(ctx, auth.User{Login: "ben", Locked: true}))
	o.store.Hurry()
	lock := auth.Lock{Client: netip.MustParsePrefix("192.0.2.1/32"), Until: now.Add(time.Hour), Failures: 9}
	o.must(o.store.LoginLockout().Save(ctx, now, auth.Unsaved{Locks: []auth.Lock{lock}}))
	o.must(o.store.AppendEventsNow(ctx, []trace.Event{{Time: now, Kind: trace.Accepted, Login: "ben",
		From: "ben@example.com"}, {Time: now, Kind: trace.Accepted, Login: devices.LearningLogin, Listener: "devices",
		Client: "10.0.5.130", From: "copier@example.com", ID: "L1"}}))
	o.must(o.store.Learn(ctx, devices.Learning{Listener: "devices", Network: netip.MustParsePrefix("10.0.5.128/26"),
		Began: now.Add(-time.Minute), Until: now.Add(time.Hour)}))
	_, err := o.Keys.AddNow(ctx, root, "example.org", "s1", []string{"ed25519"})
	o.must(err)
	_, err = o.access.Users.Invite(ctx, root, "anna", operate.Viewer)
	o.must(err)
	dora := operate.Actor{Name: "dora@example.com", Channel: operate.SelfService}
	_, err = o.AppPasswords.Enrol(ctx, dora, operate.Person{Login: dora.Name, Source: operate.OIDCSource,
		Issuer: "https://login.example.com", Subject: "4"})
	o.must(err)
	_, err = o.AppPasswords.Add(ctx, dora, operate.NewAppPassword{Login: dora.Name, Name: "old"})
	o.must(err)
	_, err = o.access.Tokens.Add(ctx, root, access.NewToken{Name: "old", Scopes: operate.Scopes})
	o.must(err)
	_, err = o.file.Exec("DELETE FROM audit")
	o.must(err)
}

// aside are the tables of what the program keeps for itself, and of the audit.
var aside = []string{"audit", "secret", "migration", "generation", "sqlite_sequence"}

func (o *office) tables() (names []string) {
	o.Helper()
	rows, err := o.file.Query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
	o.must(err)
	defer rows.Close()
	for rows.Next() {
		var name string
		o.must(rows.Scan(&name))
		if !slices.Contains(aside, name) {
			names = append(names, name)
		}
	}
	o.must(rows.Err())
	return names
}

// state is everything that the store keeps for people, as text.
func (o *office) state() string {
	o.Helper()
	var b strings.Builder
	for _, table := range o.tables() {
		rows, err := o.file.Query("SELECT * FROM " + table)
		o.must(err)
		columns, err := rows.Columns()
		o.must(err)
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			o.must(rows.Scan(into...))
			fmt.Fprintln(&b, table, values)
		}
		o.must(rows.Err())
		o.must(rows.Close())
	}
	return b.String()
}

// spoil makes all writes to tables fail.
func (o *office) spoil(tables ...string) {
	o.Helper()
	for _, table := range tables {
		for _, what := range []string{"INSERT", "UPDATE", "DELETE"} {
			_, err := o.file.Exec(fmt.Sprintf("CREATE TRIGGER spoilt_%[1]s_%[2]s BEFORE %[2]s ON %[1]s BEGIN SELECT "+
				"RAISE(ABORT, 'spoilt'); END", table, what))
			o.must(err)
		}
	}
}

// outcomes are those of the audit, as "operation: outcome".
func (o *office) outcomes() (all []string) {
	o.Helper()
	entries, err := o.store.Audit(o.Context(), store.AuditQuery{})
	o.must(err)
	for _, e := range entries {
		all = append(all, e.Operation+": "+e.Outcome)
	}
	return all
}
