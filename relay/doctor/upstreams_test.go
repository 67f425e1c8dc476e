package doctor

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"postern/certs"
	"postern/internal/fakesmtp"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/finding"
	"postern/relay/status"
	"postern/relay/upstream"
)

// startedOnce makes the self-signed certificates, as the first start does.
func startedOnce(t *testing.T, w *ward) {
	t.Helper()
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	x := newExam(t.Context(), w.o)
	if _, err := certs.New(x.c.CertOptions(slog.New(slog.DiscardHandler))); err != nil {
		t.Fatal(err)
	}
}

func certsOf(t *testing.T, w *ward) certs.Info {
	t.Helper()
	x := newExam(t.Context(), w.o)
	infos, err := certs.Check(x.c.CertOptions(slog.New(slog.DiscardHandler)), time.Now())
	if err != nil || len(infos) != 1 {
		t.Fatalf("%v, %v", infos, err)
	}
	return infos[0]
}

// office is a relay before a fake Microsoft 365.
type office struct {
	*ward
	login *fakeprovider.OAuth
	smtp  *fakeprovider.SMTP
}

const mailbox = "office@contoso.example"

// startLogin starts a login service and returns what stands in [upstream.oauth] for it.
func startLogin(t *testing.T) (login *fakeprovider.OAuth, block string) {
	t.Helper()
	login = fakeprovider.NewOAuth(fakeprovider.OAuthOptions{Microsoft: true})
	login.AddClient(fakeprovider.Client{ID: "app", Secret: "hush"})
	web, err := login.Listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	return login, fmt.Sprintf("token_url = \"%s/token\"\nflow = \"client-credentials\"\nclient_secret = \"hush\"\n"+
		"client_id = \"app\"\ntenant = \"contoso.example\"\n", web.URL)
}

// upstreamBlock is an [[upstream]] on this machine, open for more of [upstream.oauth].
func upstreamBlock(name, port, caFile, more string) string {
	return fmt.Sprintf("[[upstream]]\nhost = \"localhost\"\nname = %q\nport = %s\nca_file = %q\nusername = %q\n%s"+
		"[upstream.oauth]\n", name, port, caFile, mailbox, more)
}

// newOffice starts the provider. more stands below [upstream.oauth].
func newOffice(t *testing.T, more string) *office {
	t.Helper()
	login, tokens := startLogin(t)
	o := &office{login: login}
	ca := testkit.NewCA(t)
	o.smtp = fakeprovider.NewSMTP(fakeprovider.SMTPOptions{TLS: ca.Leaf(testkit.LeafOptions{}).Server(),
		Valid: o.login.Valid})
	port, err := o.smtp.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.smtp.Close)
	o.ward = newWard(t, fmt.Sprintf("[[policy]]\nsenders = [\"{login}\", %q, \"scans@contoso.example\"]\n", mailbox)+
		upstreamBlock("m365", fmt.Sprint(port), ca.File, "")+"provider = \"microsoft\"\n"+tokens+more)
	return o
}

// The fake provider in each of its broken states.
func TestUpstreamFindingsAtMicrosoft(t *testing.T) {
	sendAs := func(_, from string) bool { return true }
	for _, c := range []struct {
		name   string
		spoil  func(*office)
		code   string
		weight finding.Weight
		words  []string
	}{
		{"well", func(o *office) { o.smtp.Set(fakeprovider.Regime{SendAs: sendAs}) }, codeUpstreamOK, finding.Healthy,
			[]string{"2 senders"}},
		{"SMTP AUTH is off", func(o *office) {
			o.smtp.Set(fakeprovider.Regime{Login: func(string) string { return fakeprovider.LoginDisabled }})
		}, codeUpstreamLogin, finding.Danger, []string{"SMTP AUTH is switched off", "Set-CASMailbox"}},
		{"a token that is refused", func(o *office) {
			o.smtp.Set(fakeprovider.Regime{Login: func(string) string { return "535 5.7.3 Authentication failed" }})
		}, codeUpstreamLogin, finding.Danger, []string{"535 5.7.3"}},
		{"secret ended", func(o *office) {
			o.login.Fail(fakeprovider.Fault{Endpoint: "token", Status: 401, Error: "invalid_client", AADSTS: 7000222,
				Description: "The provided client secret keys are expired."})
		}, codeUpstreamToken, finding.Danger, []string{"secret"}},
		{"wrong tenant", func(o *office) {
			o.login.Fail(fakeprovider.Fault{Endpoint: "token", Status: 400, Error: "invalid_request", AADSTS: 90002,
				Description: "Tenant 'contoso.example' not found."})
		}, codeUpstreamToken, finding.Danger, []string{"tenant"}},
		{"closed", func(o *office) { o.smtp.Close() }, codeUpstreamConnect, finding.Danger,
			[]string{"refuses connections"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t, "")
			c.spoil(o)
			want(t, o.examine("upstreams"), c.code, c.weight, c.words...)
			if n := len(o.smtp.Arrivals()); n != 0 {
				t.Errorf("%d messages were sent", n)
			}
		})
	}
}

// A sender whose own login is refused, and whose mail goes by another one, is no danger.
func TestASenderWithAnotherWay(t *testing.T) {
	o := newOffice(t, "identity = \"sender\"\n")
	o.smtp.Set(fakeprovider.Regime{SendAs: func(_, _ string) bool { return true }, Login: func(mailbox string) string {
		if mailbox == "scans@contoso.example" {
			return fakeprovider.LoginDisabled
		}
		return ""
	}})
	list := o.examine("upstreams")
	want(t, list, codeUpstreamLogin, finding.Fault, "logged in as scans@contoso.example", "leaves as "+mailbox)
	if finding.Worst(list) == finding.Danger {
		t.Errorf("danger:\n%s", text(list))
	}
}

// plainServer is the block of a server without TLS or login.
func plainServer(t *testing.T, c fakesmtp.Config, more string) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(submissionServer(t, c))
	return fmt.Sprintf("[[policy]]\nsenders = [\"anna@example.com\"]\n[[upstream]]\nname = \"office\"\nhost = "+
		"\"127.0.0.1\"\nport = %s\ntls = \"none\"\n%s", port, more)
}

func refuse(verb, argument, reply string) fakesmtp.Config {
	return fakesmtp.Config{Hook: func(_ *fakesmtp.Session, v, line string) fakesmtp.Action {
		if v == verb && strings.Contains(line, argument) {
			return fakesmtp.Action{Reply: reply}
		}
		return fakesmtp.Action{}
	}}
}

func TestUpstreamFindingsBySMTP(t *testing.T) {
	for _, c := range []struct {
		name   string
		text   string
		code   string
		weight finding.Weight
		words  []string
	}{
		{"resolve", "[[upstream]]\nname = \"office\"\nhost = \"nobody.invalid\"\n", codeUpstreamResolve, finding.Danger,
			[]string{"nobody.invalid"}},
		{"greeting", plainServer(t, refuse(fakesmtp.Connect, "", "554 5.7.1 not you"), ""), codeUpstreamGreeting,
			finding.Danger, []string{"not you"}},
		{"Send As", plainServer(t, refuse("MAIL", "anna", "550 5.7.60 not allowed to send as"), ""), codeUpstreamSender,
			finding.Danger, []string{"anna@example.com"}},
		{"null", plainServer(t, refuse("MAIL", "<>", "501 5.1.7 no null"), "null_sender = \"accepted\"\n"),
			codeUpstreamNull, finding.Fault, []string{"bounce_from"}},
		{"TLS", strings.Replace(plainServer(t, fakesmtp.Config{}, ""), "none", "starttls", 1), codeUpstreamTLS,
			finding.Danger, []string{"STARTTLS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want(t, newWard(t, c.text).examine("upstreams"), c.code, c.weight, c.words...)
		})
	}
	// With another upstream that works mail leaves: a fault.
	w := newWard(t, plainServer(t, fakesmtp.Config{}, "")+strings.Replace(plainUpstream, "office", "spare", 1))
	want(t, w.examine("upstreams"), codeUpstreamConnect, finding.Fault, "spare")
	// Unless a route has that one alone.
	w = newWard(t, plainServer(t, fakesmtp.Config{}, "")+strings.Replace(plainUpstream, "office", "spare", 1)+
		"[[route]]\nsenders = [\"*@example.com\"]\nupstreams = [\"spare\"]\n[[route]]\nupstreams = [\"office\"]\n")
	want(t, w.examine("upstreams"), codeUpstreamConnect, finding.Danger, "spare")
	// A configuration that nothing but the store keeps from being tried.
	o := newOffice(t, "")
	if err := os.WriteFile(o.dir, nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	want(t, o.examine("upstreams"), codeUpstreamUntested, finding.Fault, "not a directory")
}

func TestUpstreamFindingsByGraph(t *testing.T) {
	ca := testkit.NewCA(t)
	_, tokens := startLogin(t)
	access, drafts := fakeprovider.AccessGranted, fakeprovider.AccessGranted
	graph := fakeprovider.NewGraph(fakeprovider.GraphOptions{
		Token:     func(string, string) fakeprovider.Access { return access },
		ReadWrite: func(string, string) fakeprovider.Access { return drafts }})
	running, err := graph.Listen(ca.Leaf(testkit.LeafOptions{}).Server())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	more := "provider = \"microsoft-graph\"\nlarge_mail = \"upload\"\n"
	w := newWard(t, "[[policy]]\nsenders = [\"scans@contoso.example\"]\n"+
		upstreamBlock("office", portOf(running.URL), ca.File, more)+
		"identity = \"sender\"\n"+tokens)
	want(t, w.examine("upstreams"), codeUpstreamOK, finding.Healthy)
	drafts = fakeprovider.AccessDenied
	want(t, w.examine("upstreams"), codeUpstreamLarge, finding.Fault, "large")
	access = fakeprovider.AccessDenied
	want(t, w.examine("upstreams"), codeUpstreamSender, finding.Danger, "scans@contoso.example")
}

// What the daemon knows: identities that are paused or back off, senders and storms, and what ends.
func TestWhatTheDaemonKnowsOfUpstreams(t *testing.T) {
	now := time.Now()
	known := func(state status.State, s upstream.Status) func(*status.Report) {
		return func(r *status.Report) {
			r.Upstreams = []status.Upstream{{Name: "office", State: state,
				Identities: []status.Identity{{Identity: "relay",
					Status: s, Since: now.Add(-time.Hour), NextTry: now.Add(time.Hour),
					Reply: "535 5.7.8 wrong \x1b[31mpassword",
					Cause: "The password is wrong.", Fix: "Write the right one."}},
				Senders: []status.Sender{{Sender: "boss@example.com", Reply: "550 5.7.60 no",
					NextTry: now.Add(time.Hour)}},
				Storms: []status.Storm{{Reply: "550 go away", Kept: 77}}}}
			r.Secrets = []status.Secret{{Upstream: "office", What: "client secret",
				Ends: now.Add(48*time.Hour + time.Minute),
				Fix:  "Make another."}, {Upstream: "office", What: "consent", Ends: now.Add(90 * 24 * time.Hour)}}
		}
	}
	w := newWard(t, plainUpstream)
	s := w.daemon(known(status.Paused, upstream.Paused))
	if err := s.SaveQuotas(t.Context(), "office", []upstream.Quota{{Identity: "relay", Until: now.Add(time.Hour),
		Reply: mail.R(550, "5.4.5", "Daily limit")}}); err != nil {
		t.Fatal(err)
	}
	list := w.examine("upstreams")
	want(t, list, codeUpstreamPaused, finding.Danger, "The password is wrong.", "Write the right one.")
	want(t, list, codeSenderDenied, finding.Fault, "boss@example.com")
	want(t, list, codeStorm, finding.Fault, "77 messages were kept")
	want(t, list, codeSecretEnds, finding.Danger, "client secret", "in 2 days", "Make another.")
	want(t, list, codeSecretOK, finding.Healthy)
	want(t, list, codeQuotaUsed, finding.Fault, "Daily limit")
	if strings.Contains(fmt.Sprint(list), "\x1b") {
		t.Error("an escape sequence got through")
	}
	w = newWard(t, plainServer(t, fakesmtp.Config{}, ""))
	w.daemon(known(status.BackingOff, upstream.BackingOff))
	want(t, w.examine("upstreams"), codeUpstreamBackoff, finding.Fault, "The test works now")
}

func TestQuotasNearlyUsed(t *testing.T) {
	w := newWard(t, plainUpstream)
	x := upstreamExam{newExam(t.Context(), w.o)}
	day := upstream.Rate{Count: 100, Unit: upstream.Messages, Per: 24 * time.Hour}
	minute := upstream.Rate{Count: 10, Unit: upstream.Messages, Per: time.Minute}
	used := func(n int64) upstream.Quota {
		return upstream.Quota{Identity: "relay", Counts: []upstream.QuotaCount{
			{Unit: upstream.Messages, Per: day.Per, Leaves: x.now.Add(time.Hour), Count: n},
			{Unit: upstream.Messages, Per: day.Per, Leaves: x.now.Add(-time.Hour), Count: 50}, // has left
			{Unit: upstream.Messages, Per: minute.Per, Leaves: x.now.Add(time.Second), Count: 10}}}
	}
	rates := []upstream.Rate{day, minute}
	if list := x.quotaOf("office", used(89), rates); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	want(t, x.quotaOf("office", used(90), rates), codeQuotaNear, finding.Advice, "90 of 100 messages within 1d")
}

// Secrets of relay.toml are known without a daemon.
func TestSecretsWithoutADaemon(t *testing.T) {
	end := time.Now().Add(20 * 24 * time.Hour).UTC().Format(time.DateOnly)
	o := newOffice(t, "expires = \""+end+"\"\n")
	want(t, o.examine("upstreams"), codeSecretEnds, finding.Fault, "client secret")
}

// What a provider will not take any more is in danger weeks before, and after.
func TestProvidersEnds(t *testing.T) {
	x := upstreamExam{newExam(t.Context(), newWard(t, "[[upstream]]\nname = \"office\"\nprovider = \"microsoft365\"\n"+
		"username = \"office@example.com\"\npassword = \"x\"\n").o)}
	for _, c := range []struct {
		day  string
		want finding.Weight
	}{{"2026-10-01", finding.Healthy}, {"2026-11-28", finding.Danger}, {"2027-02-01", finding.Danger}} {
		x.now, _ = time.Parse(time.DateOnly, c.day)
		list := x.secrets()
		if len(list) != 1 || list[0].Weight != c.want || !strings.Contains(list[0].Subject, "password login") {
			t.Errorf("%s: %+v", c.day, list)
		}
	}
}

// What an examiner says with its weight is not said again as a matter of taste.
func TestNothingIsSaidTwice(t *testing.T) {
	w := newWard(t, "[[upstream]]\nname = \"office\"\nprovider = \"microsoft365\"\n"+
		"username = \"office@example.com\"\npassword = \"x\"\n")
	if err := os.Chmod(w.path, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range w.examine("config") {
		if f.Code == codeConfigUnwise && (strings.Contains(f.What, "chmod") ||
			strings.Contains(f.What, "password logins")) {
			t.Errorf("%+v", f)
		}
	}
}

// TestReported: the words of others end where their quotation marks do.
func TestReported(t *testing.T) {
	if got := reported("550 say \"No.\". Nobody can send there.\n"); got != "550 say 'No.'. Nobody can send there" {
		t.Error(got)
	}
}
