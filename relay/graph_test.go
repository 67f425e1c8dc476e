package relay

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/fakeprovider"
	"postern/relay/outbound"
	"postern/relay/queue"
	"postern/relay/trace"
	"postern/relay/upstream"
)

const graphMailbox = "office@contoso.example"

// graphRig is a relay whose upstream is Microsoft Graph.
type graphRig struct {
	*oauthRig
	graph *fakeprovider.Graph
}

// newGraphRig starts Graph, the login service and a relay before them. upstream is added to [[upstream]], block to
// [upstream.oauth], extra to the file.
func newGraphRig(t *testing.T, o fakeprovider.GraphOptions, upstream, block, extra string) *graphRig {
	t.Helper()
	r := &graphRig{oauthRig: newLogin(t)}
	if o.Token == nil {
		o.Token = r.judge
	}
	r.graph = fakeprovider.NewGraph(o)
	running, err := r.graph.Listen(r.conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	base, err := url.Parse(running.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.configure("", fmt.Sprintf(`%s
[[upstream]]
name = "graph"
provider = "microsoft-graph"
host = "127.0.0.1"
port = %s
ca_file = "ca.pem"
username = %q
%s
[upstream.oauth]
`, extra, base.Port(), graphMailbox, upstream), block)
	r.addPeople()
	r.start()
	t.Cleanup(r.close)
	return r
}

// judge wants tokens that are good now, and made for Graph.
func (r *graphRig) judge(token, _ string) fakeprovider.Access {
	_, scopes, ok := r.login.Valid(token)
	if !ok || !slices.Contains(scopes, "https://graph.microsoft.com/.default") {
		return fakeprovider.AccessInvalid
	}
	return fakeprovider.AccessGranted
}

// arrived waits for n messages and an empty queue, and proves that each arrived once and that nothing bounced.
func (r *graphRig) arrived(n int) []fakeprovider.GraphArrival {
	r.t.Helper()
	r.eventually(fmt.Sprint(n, " messages"), func() bool { return len(r.graph.Arrivals()) >= n })
	s := r.store()
	defer s.Close()
	r.eventually("an empty queue", func() bool {
		left, err := s.List(r.t.Context(), queue.Filter{})
		return err == nil && len(left) == 0
	})
	all := r.graph.Arrivals()
	times := map[string]int{}
	for _, a := range all {
		_, id, _ := strings.Cut(string(a.MIME), "Message-ID: <")
		id, _, _ = strings.Cut(id, ">")
		times[id]++
	}
	if len(all) != n || len(times) != n {
		r.t.Errorf("%d messages arrived, %d of them different; want %d", len(all), len(times), n)
	}
	for _, kind := range []trace.Kind{trace.Failed, trace.Report} {
		if events, err := s.Events(r.t.Context(), trace.Query{Kinds: []trace.Kind{kind}}); err != nil ||
			len(events) > 0 {
			r.t.Errorf("%s: %v, %+v", kind, err, events)
		}
	}
	return all
}

// A client that knows a password sends by Graph: the envelope decides who gets the message, not the header.
func TestGraphKeepsToTheEnvelope(t *testing.T) {
	r := newGraphRig(t, fakeprovider.GraphOptions{}, "", "", "")
	from := people[0]
	text := "From: <" + from + ">\nTo: <zoe@example.net>\nCc: \"Max, M.\" <max@example.net>\nMessage-ID: " +
		"<1@contoso.example>\nSubject: hi\n\nhello\n"
	reply, err := sendOn(r.client(from), from, []string{"zoe@example.net", "max@example.net", "blind@example.org"},
		text)
	if err != nil || !strings.Contains(reply, "taken by graph") {
		t.Fatalf("%q, %v", reply, err)
	}
	a := r.arrived(1)[0]
	slices.Sort(a.Recipients)
	if want := []string{"blind@example.org", "max@example.net", "zoe@example.net"}; !slices.Equal(a.Recipients, want) ||
		a.Mailbox != graphMailbox {
		t.Errorf("%v by %s", a.Recipients, a.Mailbox)
	}
	if strings.Contains(string(a.MIME), "DKIM-Signature") || !strings.HasSuffix(string(a.MIME), "\r\n\r\nhello\r\n") {
		t.Errorf("%s", a.MIME)
	}

	// Graph would send it to a person whom nobody has asked for.
	_, err = sendOn(r.client(from), from, []string{"zoe@example.net"}, strings.ReplaceAll(text, "max@", "stranger@"))
	if code(err) != 554 || !strings.Contains(err.Error(), "stranger@example.net") {
		t.Errorf("%v", err)
	}
	if n := len(r.graph.Arrivals()); n != 1 {
		t.Errorf("%d arrivals", n)
	}
}

// Routes that part the recipients of one message are our doing: the mail is kept.
func TestGraphKeepsMailThatRoutesHaveParted(t *testing.T) {
	p := newProvider(t)
	_, port, _ := strings.Cut(p.address, ":")
	other := fmt.Sprintf(`[[route]]
recipients = ["*@example.net"]
upstreams = ["graph"]
[[route]]
upstreams = ["other"]
[[upstream]]
name = "other"
host = "127.0.0.1"
port = %s
ca_file = %q
username = "relay"
password = "upstream secret"
`, port, p.caFile)
	r := newGraphRig(t, fakeprovider.GraphOptions{}, "", "", other)
	text := "From: <" + people[0] + ">\nTo: <zoe@example.net>, <max@example.org>\nSubject: hi\n\nhello\n"
	if _, err := sendOn(r.client(people[0]), people[0], []string{"zoe@example.net", "max@example.org"},
		text); err != nil {
		t.Fatal(err)
	}
	if m := p.wait(1)[0]; !slices.Equal(m.to, []string{"max@example.org"}) {
		t.Errorf("%v", m.to)
	}
	if e := r.events(trace.Deferred)[0]; e.To != "zoe@example.net" ||
		!strings.Contains(e.Reply.Text, "max@example.org") {
		t.Errorf("%+v", e)
	}
	if n := len(r.graph.Arrivals()); n != 0 {
		t.Errorf("%d arrivals", n)
	}
}

// Whatever Graph does, every message of ten people arrives, once, and none bounces.
func TestEveryMessageArrivesOnceByGraph(t *testing.T) {
	const each = 10
	fast := "rate = []"
	for name, c := range map[string]struct {
		options         fakeprovider.GraphOptions
		upstream, block string
		before, during  func(*graphRig)
		check           func(*testing.T, *graphRig, []fakeprovider.GraphArrival)
	}{
		"four at a time": {
			options: fakeprovider.GraphOptions{Meet: 4, Latency: 10 * time.Millisecond}, upstream: fast,
			check: func(t *testing.T, r *graphRig, _ []fakeprovider.GraphArrival) {
				if most, busy := r.graph.MostAtOnce(graphMailbox), r.graph.Answered(429); most != 4 || busy != 0 ||
					!r.graph.Met(graphMailbox) {
					t.Errorf("%d at once, %d refused", most, busy)
				}
				if n := r.login.Requests("token"); n != 1 {
					t.Errorf("%d tokens were fetched", n)
				}
			},
		},
		"too many requests": {
			upstream: fast,
			before: func(r *graphRig) {
				r.graph.Fail(fakeprovider.GraphFault{Status: 429, Code: "ApplicationThrottled",
					Message: "Application is over its limit.", RetryAfter: "7", Times: 1})
			},
			check: func(t *testing.T, r *graphRig, all []fakeprovider.GraphArrival) {
				if n := r.graph.Answered(429); n != 1 {
					t.Errorf("it was asked again after %d refusals", n)
				}
				said := time.Now()
				for _, e := range r.events(trace.Deferred) {
					if e.Time.Before(said) {
						said = e.Time
					}
				}
				early := 0
				for _, a := range all {
					if a.At.Before(said.Add(6800 * time.Millisecond)) { // without Retry-After it would be 5 s
						early++
					}
				}
				if early > 10 { // a few were under way
					t.Errorf("%d messages did not wait as long as it said", early)
				}
			},
		},
		"tokens that end": {
			upstream: fast,
			during: func(r *graphRig) {
				r.eventually("some arrivals", func() bool { return len(r.graph.Arrivals()) > 5 })
				r.login.Advance(2 * time.Hour)
			},
			check: func(t *testing.T, r *graphRig, _ []fakeprovider.GraphArrival) {
				if r.graph.Answered(401) == 0 || r.login.Requests("token") < 2 {
					t.Errorf("no token was refused: %v", r.login.Counts())
				}
			},
		},
		"a rate": {
			upstream: `rate = ["40 messages/second"]`,
			check: func(t *testing.T, _ *graphRig, all []fakeprovider.GraphArrival) {
				for i := 40; i < len(all); i++ {
					if d := all[i].At.Sub(all[i-40].At); d < time.Second {
						t.Fatalf("41 messages within %v", d)
					}
				}
			},
		},
		"senders without mailbox": {
			options: fakeprovider.GraphOptions{Mailboxes: append([]string{graphMailbox},
				people[:5]...)}, upstream: fast, block: `identity = "sender"`,
			check: func(t *testing.T, r *graphRig, all []fakeprovider.GraphArrival) {
				by := map[string]int{}
				for _, a := range all {
					by[a.Mailbox]++
				}
				if by[graphMailbox] != 5*each || by[people[0]] != each {
					t.Errorf("%v", by)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			r := newGraphRig(t, c.options, c.upstream, c.block, "")
			if c.before != nil {
				c.before(r)
			}
			var during sync.WaitGroup
			if c.during != nil {
				during.Go(func() { c.during(r) })
			}
			r.push(each)
			during.Wait()
			c.check(t, r, r.arrived(each*len(people)))
			if strings.Contains(r.log.String(), oauthSecret) || accessToken.MatchString(r.log.String()) {
				t.Error("a secret is in the log")
			}
		})
	}
}

// A reload that changes the upstream keeps what was counted, and mail goes on.
func TestGraphReload(t *testing.T) {
	r := newGraphRig(t, fakeprovider.GraphOptions{}, `rate = ["5 messages/hour"]`, "", "")
	send := func(n int) {
		t.Helper()
		text := fmt.Sprintf("From: <%s>\nTo: <zoe@example.net>\nMessage-ID: <%d@contoso.example>\n\nhello\n", people[0],
			n)
		if _, err := sendOn(r.client(people[0]), people[0], []string{"zoe@example.net"}, text); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2 {
		send(n)
	}
	r.arrived(2)
	text, err := os.ReadFile(r.path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path(), []byte(strings.Replace(string(text), "5 messages/hour", "3 messages/hour", 1)),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(2)
	r.arrived(3)
	up := r.server.state.Load().routes.Upstreams[0]
	if p, until := up.Reserve(time.Now(), ""); p != nil || time.Until(until) < 50*time.Minute {
		t.Errorf("place %v until %v", p, until)
	}
	if st := up.States()[0]; len(st.Rates) != 1 || st.Rates[0].Used != 3 {
		t.Errorf("%+v", st)
	}
}

// What was sent counts after a restart: Exchange goes on counting too.
func TestGraphRatesSurviveARestart(t *testing.T) {
	r := newGraphRig(t, fakeprovider.GraphOptions{}, `rate = ["2 messages/day"]`, "", "")
	send := func() (string, error) {
		return sendOn(r.client(people[0]), people[0], []string{"zoe@example.net"},
			"From: <"+people[0]+">\nTo: <zoe@example.net>\n\nhello\n")
	}
	for range 2 {
		if reply, err := send(); err != nil || !strings.Contains(reply, "taken by") {
			t.Fatalf("%q, %v", reply, err)
		}
	}
	r.close()
	r.start()
	if reply, err := send(); err != nil || !strings.Contains(reply, "queued as") {
		t.Errorf("the third message of the day: %q, %v", reply, err)
	}
	if n := len(r.graph.Arrivals()); n != 2 {
		t.Errorf("%d arrivals, at a rate of 2 a day", n)
	}
}

// base64Lines is a part in base64, as clients write it.
func base64Lines(b []byte) string {
	var lines []string
	for chunk := range slices.Chunk(base64.StdEncoding.AppendEncode(nil, b), 76) {
		lines = append(lines, string(chunk))
	}
	return strings.Join(lines, "\n")
}

// A client sends a scan of 8 MB with a text in two versions, a picture and a letter. With large_mail = "upload" all of
// it is there at the other end, for those of the envelope and nobody else; the trace says that the message was rebuilt.
func TestGraphLargeMailFromClientToMailbox(t *testing.T) {
	r := newGraphRig(t, fakeprovider.GraphOptions{}, `large_mail = "upload"`, "", "")
	from := people[0]
	random := rand.NewChaCha8([32]byte{1})
	scan, photo, letter := make([]byte, 8_000_000), make([]byte,
		50_000), []byte("Sehr geehrte Damen,\r\n\xe4\xf6\xfc\r\n")
	_, _ = random.Read(scan)
	_, _ = random.Read(photo)
	text := "From: <" + from + ">\nTo: =?utf-8?q?Zo=C3=AB?= <zoe@example.net>\nCc: <max@example.net>\nMessage-ID: " +
		"<big@contoso.example>\nSubject: =?utf-8?q?Pr=C3=BCfbericht?=\n" +
		"X-Job: 7\nIn-Reply-To: <0@contoso.example>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n" +
		"--m\nContent-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/plain\n\npoorer\n" +
		"--a\nContent-Type: multipart/related; boundary=r\n\n--r\nContent-Type: text/html; " +
		"charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<p>Pr=FCfung <img " +
		"src=3D\"cid:photo@1\"></p>\n" +
		"--r\nContent-Type: image/jpeg; name=photo.jpg\nContent-ID: <photo@1>\nContent-Transfer-Encoding: base64\n\n" +
		base64Lines(photo) + "\n--r--\n--a--\n" +
		"--m\nContent-Type: application/pdf\nContent-Disposition: attachment; " +
		"filename*=utf-8''Pr%C3%BCfung.pdf\nContent-Transfer-Encoding: base64\n\n" + base64Lines(scan) + "\n" +
		"--m\nContent-Type: text/plain; charset=iso-8859-1\nContent-Disposition: attachment; " +
		"filename=letter.txt\nContent-Transfer-Encoding: base64\n\n" + base64Lines(letter) + "\n--m--\n"
	if _, err := sendOn(r.client(from), from, []string{"zoe@example.net", "max@example.net", "blind@example.org"},
		text); err != nil {
		t.Fatal(err)
	}
	r.eventually("the message", func() bool { return len(r.graph.Arrivals()) == 1 })
	a := r.graph.Arrivals()[0]
	slices.Sort(a.Recipients)
	if want := []string{"blind@example.org", "max@example.net", "zoe@example.net"}; !slices.Equal(a.Recipients, want) ||
		a.Draft == nil || a.Mailbox != graphMailbox {
		t.Fatalf("%v by %s, draft %v", a.Recipients, a.Mailbox, a.Draft != nil)
	}
	d := a.Draft
	if d.Subject != "Prüfbericht" || d.Body.ContentType != "html" ||
		strings.TrimSpace(d.Body.Content) != `<p>Prüfung <img src="cid:photo@1"></p>` ||
		d.InternetMessageID != "<big@contoso.example>" ||
		d.From.EmailAddress.Address != from || d.ToRecipients[0].EmailAddress.Name != "Zoë" ||
		len(d.CcRecipients) != 1 || len(d.BccRecipients) != 1 {
		t.Errorf("subject %q, body %q, %+v", d.Subject, d.Body, d.ToRecipients)
	}
	for i, want := range []fakeprovider.GraphAttachment{
		{Name: "photo.jpg", ContentType: "image/jpeg", Content: photo, IsInline: true, ContentID: "photo@1"},
		{Name: "Prüfung.pdf", ContentType: "application/pdf", Content: scan, Uploaded: true},
		{Name: "letter.txt", ContentType: "text/plain", Content: letter},
	} {
		if i >= len(d.Attachments) {
			t.Fatalf("%d attachments", len(d.Attachments))
		}
		if got := d.Attachments[i]; got.Name != want.Name || got.ContentType != want.ContentType ||
			got.IsInline != want.IsInline || got.ContentID != want.ContentID || got.Uploaded != want.Uploaded ||
			!bytes.Equal(got.Content, want.Content) {
			t.Errorf("attachment %d: %q %q, %d octets", i, got.Name, got.ContentType, len(got.Content))
		}
	}
	if e := r.events(trace.Delivered)[0]; !strings.Contains(e.Detail, "it was rebuilt") ||
		!strings.Contains(e.Detail, "In-Reply-To") {
		t.Errorf("%+v", e)
	}
	if n := len(r.graph.Drafts()); n != 0 {
		t.Errorf("%d drafts are left", n)
	}
}

// What is not rebuilt is refused to the client itself, with the reason; nothing is queued, and no bounce is written.
func TestGraphLargeMailRefusedInTheSession(t *testing.T) {
	big := "--b\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" +
		base64Lines(make([]byte, 2_500_000)) + "\n--b--\n"
	for name, c := range map[string]struct {
		upstream, kind, says string
		code                 int
	}{
		"not asked for": {"", "mixed", `large_mail = "upload"`, 552},
		"over the size": {"large_mail = \"upload\"\nmax_message_size = \"3.2MB\"", "mixed", "max_message_size", 552},
		"signed":        {`large_mail = "upload"`, "signed", "multipart/signed", 554},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGraphRig(t, fakeprovider.GraphOptions{}, c.upstream, "", "")
			text := "From: <" + people[0] + ">\nTo: <zoe@example.net>\nMIME-Version: 1.0\nContent-Type: multipart/" +
				c.kind + "; boundary=b\n\n" + big
			_, err := sendOn(r.client(people[0]), people[0], []string{"zoe@example.net"}, text)
			if code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			if n := len(r.graph.Arrivals()) + len(r.graph.Drafts()); n != 0 {
				t.Errorf("%d messages were made", n)
			}
		})
	}
}

// Without Mail.ReadWrite a large message is kept, and small mail goes on.
func TestGraphLargeMailWithoutPermission(t *testing.T) {
	var denied atomic.Bool
	denied.Store(true)
	r := newGraphRig(t, fakeprovider.GraphOptions{ReadWrite: func(string, string) fakeprovider.Access {
		if denied.Load() {
			return fakeprovider.AccessDenied
		}
		return fakeprovider.AccessGranted
	}}, `large_mail = "upload"`, "", "")
	head := "From: <" + people[0] + ">\nTo: <zoe@example.net>\nMIME-Version: 1.0\n"
	big := head + "Content-Type: application/pdf; name=scan.pdf\nContent-Transfer-Encoding: base64\n\n" +
		base64Lines(make([]byte, 3_500_000)) + "\n"
	if reply, err := sendOn(r.client(people[0]), people[0], []string{"zoe@example.net"}, big); err != nil ||
		!strings.Contains(reply, "queued as") {
		t.Fatalf("%q, %v", reply, err)
	}
	if e := r.events(trace.Deferred)[0]; !strings.Contains(e.Reply.Text, "Mail.ReadWrite") ||
		!strings.Contains(e.Detail, "Application Mail.ReadWrite") {
		t.Errorf("%+v", e)
	}
	if reply, err := sendOn(r.client(people[0]), people[0], []string{"zoe@example.net"},
		head+"\nhello\n"); err != nil || !strings.Contains(reply, "taken by graph") {
		t.Errorf("small mail: %q, %v", reply, err)
	}
	denied.Store(false)
	r.server.state.Load().routes.Upstreams[0].TryAgain() // as somebody does who has mended the login
	r.retryAll()
	r.eventually("the large message", func() bool { return len(r.graph.Arrivals()) == 2 })
}

// The command that tests an upstream says what is wrong, and sends nothing.
func TestUpstreamTestByGraph(t *testing.T) {
	for name, c := range map[string]struct {
		access     fakeprovider.Access
		last, says string
	}{
		"granted": {fakeprovider.AccessGranted, "permission", "would take mail"},
		"denied":  {fakeprovider.AccessDenied, "permission", "give the application Mail.Send"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGraphRig(t, fakeprovider.GraphOptions{Token: func(string,
				string) fakeprovider.Access {
				return c.access
			}}, "", "", "")
			conf, problems := check.Config(t.Context(), r.path())
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			steps := testUpstream(t, r, conf.Upstreams[0])
			last := steps[len(steps)-1]
			if last.Name != c.last || last.OK != (c.access == fakeprovider.AccessGranted) ||
				!strings.Contains(last.Seen+last.Cause, c.says) {
				t.Errorf("%+v", steps)
			}
			if n := len(r.graph.Arrivals()); n != 0 {
				t.Errorf("%d arrivals", n)
			}
		})
	}
}

func testUpstream(t *testing.T, r *graphRig, block config.Upstream) []upstream.Step {
	t.Helper()
	c := r.server.state.Load().config
	source, err := outbound.NewTokens(c, block, r.server.store, r.server.log)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	steps, err := outbound.TestUpstream(t.Context(), "relay.example.com", block, source, upstream.Trial{})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}
