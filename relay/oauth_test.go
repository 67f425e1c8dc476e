package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/fakeprovider"
	"postern/relay/queue"
	"postern/relay/trace"
	"postern/relay/upstream"
)

// oauthRig is a relay whose upstream takes nothing but access tokens.
type oauthRig struct {
	*rig
	conf     *tls.Config // of the services
	login    *fakeprovider.OAuth
	loginURL string
	smtp     *fakeprovider.SMTP
}

const oauthSecret = "the application's secret"

// accessToken is one of fakeprovider.OAuth's.
var accessToken = regexp.MustCompile(`at\.[A-Z2-7]{40}`)

var people = func() (all []string) {
	for i := range 10 {
		all = append(all, fmt.Sprintf("person%d@contoso.example", i))
	}
	return all
}()

// newOAuthRig starts a provider and a relay before it. block is added to [upstream.oauth], upstream to [[upstream]];
// change may look at the provider first.
func newOAuthRig(t *testing.T, o fakeprovider.SMTPOptions, upstream, block string, change func(*oauthRig)) *oauthRig {
	t.Helper()
	r := newLogin(t)
	o.TLS, o.Valid, o.Scope = r.conf, r.login.Valid, "https://outlook.office365.com/.default"
	r.smtp = fakeprovider.NewSMTP(o)
	port, err := r.smtp.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.smtp.Close)
	r.configure("handoff = \"0s\"\n", fmt.Sprintf(`[[upstream]]
name = "m365"
host = "127.0.0.1"
port = %d
ca_file = "ca.pem"
username = "office@contoso.example"
%s
[upstream.oauth]
provider = "microsoft"
`, port, upstream), block)
	if change != nil {
		change(r)
	}
	r.addPeople()
	r.start()
	t.Cleanup(r.close)
	return r
}

// newLogin starts the login service of Microsoft, for a relay that does not run yet.
func newLogin(t *testing.T) *oauthRig {
	t.Helper()
	r := &oauthRig{rig: &rig{t: t, dir: t.TempDir(), log: &testkit.Log{}}}
	ca := testkit.NewCA(t)
	if err := os.WriteFile(filepath.Join(r.dir, "ca.pem"), ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	r.conf = ca.Leaf(testkit.LeafOptions{}).Server()
	r.login = fakeprovider.NewOAuth(fakeprovider.OAuthOptions{Microsoft: true})
	r.login.AddClient(fakeprovider.Client{ID: "postern", Secret: oauthSecret})
	web, err := r.login.Listen(r.conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	r.loginURL = web.URL
	return r
}

// configure writes the file: listener is added to [[listener]], upstream ends with the head of [upstream.oauth], and
// block is added to that.
func (r *oauthRig) configure(listener, upstream, block string) {
	r.t.Helper()
	text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"
[admin]
address = ""
[delivery]
retry = ["1s"]
[[listener]]
name = "submission"
address = "127.0.0.1:0"
%smax_connections_per_ip = 100
[[policy]]
senders = ["{login}"]
limits = ["100000 messages/day"]
%sflow = "client-credentials"
tenant = "contoso.example"
client_id = "postern"
client_secret = %q
token_url = "%s/contoso.example/oauth2/v2.0/token"
%s
`, listener, upstream, oauthSecret, r.loginURL, block)
	if err := os.WriteFile(r.path(), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *oauthRig) addPeople() {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	hash, err := auth.HashChosen(rigPassword)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, login := range people {
		if err := s.AddUser(r.t.Context(), auth.User{Login: login, Hash: hash, Created: time.Now(),
			Changed: time.Now()}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// push submits n messages of each person, all persons at once.
func (r *oauthRig) push(n int) {
	r.t.Helper()
	var wg sync.WaitGroup
	for _, login := range people {
		c := r.client(login)
		wg.Go(func() {
			for i := range n {
				text := fmt.Sprintf("From: <%s>\nTo: <zoe@example.net>\nMessage-ID: <%d.%s>\nSubject: %d\n\nhello\n",
					login, i, login, i)
				if _, err := sendOn(c, login, []string{"zoe@example.net"}, text); err != nil {
					r.t.Errorf("%s, message %d: %v", login, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// messageID is by which push and once know a message.
func messageID(a fakeprovider.Arrival) string {
	_, id, _ := strings.Cut(string(a.Data), "Message-ID: <")
	id, _, _ = strings.Cut(id, ">")
	return id
}

// silentOnce keeps back the reply to every nth of the messages that come for the first time, and to none a second time.
func silentOnce(nth int) func(fakeprovider.Arrival) bool {
	seen := map[string]bool{} // guarded by the provider, which asks for one message at a time
	return func(a fakeprovider.Arrival) bool {
		id := messageID(a)
		if seen[id] {
			return false
		}
		seen[id] = true
		return len(seen)%nth == 0
	}
}

// once waits until the queue is empty and proves that what was pushed is there, by its own mailbox, and nothing else:
// each message once, and twice those whose reply was kept back, for nobody but the provider knows that it took them.
func (r *oauthRig) once(n int, as func(login string) string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 120*time.Second)
	defer cancel()
	arrivals, err := r.smtp.Wait(ctx, n*len(people))
	if err != nil {
		r.t.Fatalf("%d of %d messages arrived; %+v", len(arrivals), n*len(people), r.smtp.Counts())
	}
	s := r.store()
	defer s.Close()
	r.eventually("an empty queue", func() bool {
		left, err := s.List(r.t.Context(), queue.Filter{})
		var doubtful []string // what may have been taken waits long, unless a person is in a hurry
		for _, m := range left {
			if m.Recipients[0].Doubts > 0 {
				doubtful = append(doubtful, m.ID)
			}
		}
		if len(doubtful) > 0 {
			if _, err := s.Retry(r.t.Context(), queue.Filter{IDs: doubtful}, time.Now()); err != nil {
				r.t.Error(err)
			}
			r.server.queue.Wake()
		}
		return err == nil && len(left) == 0
	})
	times, lost := map[string]int{}, map[string]bool{}
	for _, a := range r.smtp.Arrivals() {
		id := messageID(a)
		times[id]++
		lost[id] = lost[id] || a.Silent
		_, login, _ := strings.Cut(id, ".")
		if a.From != login || a.Mailbox != as(login) {
			r.t.Errorf("%s came from <%s> as %s", id, a.From, a.Mailbox)
		}
	}
	if len(times) != n*len(people) {
		r.t.Errorf("%d different messages arrived", len(times))
	}
	for id, got := range times {
		want := 1
		if lost[id] {
			want = 2
		}
		if got != want {
			r.t.Errorf("%s arrived %d times, want %d", id, got, want)
		}
	}
	for _, kind := range []trace.Kind{trace.Failed, trace.Report} {
		if events, err := s.Events(r.t.Context(), trace.Query{Kinds: []trace.Kind{kind}}); err != nil ||
			len(events) > 0 {
			r.t.Errorf("%s: %v, %+v", kind, err, events)
		}
	}
}

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func itself(login string) string { return login }

// Whatever the provider does, every message of ten people arrives, once, as its sender, and none bounces.
func TestEveryMessageArrivesOnce(t *testing.T) {
	const each = 50
	sender := `identity = "sender"`
	for name, c := range map[string]struct {
		options         fakeprovider.SMTPOptions
		upstream, block string
		before          func(*oauthRig)
		during          func(*oauthRig)
		as              func(string) string
		paced           bool // it stays within the limits of the provider
		check           func(*testing.T, *oauthRig)
	}{
		"an ordinary day": { // 15 at our rate, and what three connections had under way when the second began
			options: fakeprovider.SMTPOptions{Messages: 20, Window: time.Second},
			upstream: "provider = \"microsoft365\"\nrate = [\"15 " +
				"messages/second\"]", block: sender, as: itself, paced: true,
			check: func(t *testing.T, r *oauthRig) {
				if n := r.login.Requests("token"); n != 1 {
					t.Errorf("%d tokens were fetched for ten mailboxes", n)
				}
			},
		},
		"tokens that end and are revoked": {
			options:  fakeprovider.SMTPOptions{Messages: 1000},
			upstream: "max_connections = 3\nmessages_per_connection = 5", block: sender, as: itself, paced: true,
			before: func(r *oauthRig) {
				taken := 0
				r.smtp.Set(fakeprovider.Regime{Explain: true, Silent: func(fakeprovider.Arrival) bool {
					if taken++; taken == 2*each { // before its reply: most is yet to come
						r.login.Advance(2 * time.Hour)
					}
					return false
				}})
			},
			check: func(t *testing.T, r *oauthRig) {
				if c := r.smtp.Counts(); c.RefusedLogins == 0 || r.login.Requests("token") < 2 {
					t.Errorf("no token was refused: %+v, %v", c, r.login.Counts())
				}
			},
		},
		"more than it takes": { // nothing keeps us within the rate, so that it says no
			options: fakeprovider.SMTPOptions{Now: func() time.Time { return noon }}, upstream: "max_connections = 3",
			block: sender, as: itself,
			during: func(r *oauthRig) { // by the provider's clock, which stands still, 20 of each person are too many
				if _, err := r.smtp.Wait(r.t.Context(), 30*len(people)); err != nil {
					t.Error(err)
				}
				r.eventually("a refusal", func() bool { return r.smtp.Counts().Refused["rate"] > 0 })
				r.smtp.Advance(time.Minute)
			},
			check: func(t *testing.T, r *oauthRig) {
				if c := r.smtp.Counts(); c.Refused["rate"] == 0 {
					t.Errorf("nothing was refused: %+v", c)
				}
			},
		},
		"a token endpoint that is down": {
			options:  fakeprovider.SMTPOptions{Messages: 1000},
			upstream: "max_connections = 3", block: sender, as: itself, paced: true,
			before: func(r *oauthRig) { r.login.Fail(fakeprovider.Fault{Endpoint: "token", Times: 1, Status: 503}) },
		},
		"silence after the dot": {
			options:  fakeprovider.SMTPOptions{Messages: 1000},
			upstream: "max_connections = 3", block: sender, as: itself, paced: true,
			before: func(r *oauthRig) {
				r.smtp.Set(fakeprovider.Regime{IdleTimeout: 50 * time.Millisecond, Silent: silentOnce(20)})
			},
			check: func(t *testing.T, r *oauthRig) {
				silences := 0
				for _, a := range r.smtp.Arrivals() {
					if a.Silent {
						silences++
					}
				}
				if want := each * len(people) / 20; silences != want {
					t.Errorf("the provider was silent %d times, want %d", silences, want)
				}
			},
		},
		"senders without mailbox": {
			options: fakeprovider.SMTPOptions{Messages: 1000,
				Mailboxes: append([]string{"office@contoso.example"}, people[:5]...)},
			upstream: "max_connections = 3", block: sender, paced: true,
			as: func(login string) string {
				if login < people[5] {
					return login
				}
				return "office@contoso.example"
			},
			before: func(r *oauthRig) {
				r.smtp.Set(fakeprovider.Regime{SendAs: func(m, _ string) bool { return m == "office@contoso.example" }})
			},
			check: func(t *testing.T, r *oauthRig) {
				if c := r.smtp.Counts(); c.RefusedLogins > 5*2*3 {
					t.Errorf("%d logins were refused: what was learned is not used", c.RefusedLogins)
				}
			},
		},
		"one mailbox for all": {
			options: fakeprovider.SMTPOptions{Messages: 150, Window: time.Second},
			upstream: "max_connections = 3\nrate = [\"60 " +
				"messages/second\"]", as: func(string) string { return "office@contoso.example" }, paced: true,
			before: func(r *oauthRig) {
				r.smtp.Set(fakeprovider.Regime{SendAs: func(string, string) bool { return true }})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			r := newOAuthRig(t, c.options, c.upstream, c.block, c.before)
			var during sync.WaitGroup
			if c.during != nil {
				during.Go(func() { c.during(r) })
			}
			r.push(each)
			during.Wait()
			r.once(each, c.as)
			if c.check != nil {
				c.check(t, r)
			}
			counts := r.smtp.Counts()
			for mailbox, most := range counts.MostConnections {
				if most > 3 {
					t.Errorf("%s had %d connections", mailbox, most)
				}
			}
			for mailbox, most := range counts.MostMessages {
				if c.paced && most > c.options.Messages {
					t.Errorf("%s sent %d messages within a window", mailbox, most)
				}
			}
			if log := r.log.String(); strings.Contains(log, oauthSecret) || accessToken.MatchString(log) {
				t.Error("a secret is in the log")
			}
		})
	}
}

// Refusals that are the account's matter, though they are 5yz behind the final dot, keep the mail: nothing bounces,
// nothing is lost, and the mailboxes that work go on.
func TestAccountTroubleKeepsTheMail(t *testing.T) {
	const each = 3
	half := func(m string) bool { return m < people[5] }
	for name, c := range map[string]struct {
		regime fakeprovider.Regime
		why    string
		arrive int
	}{
		"quota": {fakeprovider.Regime{Quota: 1}, "quota", 10},
		"full":  {fakeprovider.Regime{Full: half}, "full", 5 * each},
		"disabled": {fakeprovider.Regime{Login: func(m string) string {
			if half(m) || m == "office@contoso.example" {
				return fakeprovider.LoginDisabled
			}
			return ""
		}}, "", 5 * each},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newOAuthRig(t, fakeprovider.SMTPOptions{}, "provider = \"microsoft365\"", `identity = "sender"`,
				func(r *oauthRig) { r.smtp.Set(c.regime) })
			r.push(each)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			if got, err := r.smtp.Wait(ctx, c.arrive); err != nil {
				t.Fatalf("%d of %d arrived: %+v", len(got), c.arrive, r.smtp.Counts())
			}
			paused := func() (n int) {
				for _, st := range r.server.state.Load().routes.Upstreams[0].States() {
					if st.Status != upstream.Ready {
						n++
					}
				}
				return n
			}
			r.eventually("mailboxes that wait", func() bool {
				return paused() >= 5 &&
					(c.why == "" || r.smtp.Counts().Refused[c.why] >= 5)
			})
			s := r.store()
			r.eventually("the rest of the mail in the queue", func() bool {
				left, err := s.List(t.Context(), queue.Filter{})
				return err == nil && len(left) == each*len(people)-c.arrive
			})
			for _, kind := range []trace.Kind{trace.Failed, trace.Report} {
				if events, err := s.Events(t.Context(), trace.Query{Kinds: []trace.Kind{kind}}); err != nil ||
					len(events) > 0 {
					t.Errorf("%s: %v, %+v", kind, err, events)
				}
			}
		})
	}
}
