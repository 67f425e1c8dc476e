package operate_test

import (
	"context"
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

	"postern/admin/access"
	"postern/auth"
	"postern/internal/testkit/nodetest"
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
	behind behind
	world  *dnstest.World
	dns    *noDNS
	posted atomic.Int64 // alerts
}

// newOffice makes one with a store in a file.
func newOffice(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	return newOfficeAt(t, store.Options{Dir: dir}, func() behind { return openFile(t, dir) })
}

// newOfficeOfNodes makes one with a store at a server, and two nodes there, of which mail-2 is drained.
func newOfficeOfNodes(t *testing.T) *office {
	t.Helper()
	at, address := nodetest.Options(t)
	o := newOfficeAt(t, at, func() behind { return &server{t, address} })
	nodetest.Add(t, address, "mail-1", true, false)
	nodetest.Add(t, address, "mail-2", true, true)
	return o
}

func newOfficeAt(t *testing.T, at store.Options, open func() behind) *office {
	t.Helper()
	o := &office{T: t, dns: &noDNS{}}
	var err error
	o.store, err = store.Open(t.Context(), at)
	o.must(err)
	t.Cleanup(func() { o.must(o.store.Close()) })
	o.behind = open()
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { o.posted.Add(1) }))
	t.Cleanup(hook.Close)
	c := config.Parse(filepath.Join(at.Dir, "relay.toml"), fmt.Appendf(nil, officeTOML, hook.URL))
	c.DataDir = at.Dir
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
	o.behind.rows("DELETE FROM audit")
}

// aside are the tables of what the program keeps for itself, and of the audit.
var aside = []string{"audit", "secret", "migration", "generation", "sqlite_sequence"}

func (o *office) tables() (names []string) {
	o.Helper()
	for _, row := range o.behind.rows(o.behind.listing()) {
		if !slices.Contains(aside, row[0]) {
			names = append(names, row[0])
		}
	}
	return names
}

// state is everything that the store keeps for people, as text.
func (o *office) state() string {
	o.Helper()
	var b strings.Builder
	for _, table := range o.tables() {
		for _, row := range o.behind.rows(fmt.Sprintf("SELECT * FROM %q", table)) {
			fmt.Fprintln(&b, table, row)
		}
	}
	return b.String()
}

// spoil makes all writes to tables fail.
func (o *office) spoil(tables ...string) {
	o.Helper()
	for _, table := range tables {
		o.behind.rows(o.behind.spoiling(table))
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
