package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// token looks like one of Microsoft's: too long for a command line.
var token = "eyJ0eXAiOiJKV1QiLCJub25jZSI6Ij" + strings.Repeat("aB3dE5fG7h", 160)

func xoauth2(identity, token string) string {
	return base64.StdEncoding.EncodeToString([]byte("user=" + identity + "\x01auth=Bearer " + token + "\x01\x01"))
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// errorChallenge is Google's, from its documentation of XOAUTH2.
var errorChallenge = b64(`{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}`)

// dialogServer plays one script for each connection: "C: " lines are what must come, "S: " lines what is answered.
// Behind the script it takes messages if it let the client in, and says goodbye in any case.
type dialogServer struct {
	t       *testing.T
	offer   string
	scripts [][]string
	wg      sync.WaitGroup

	mu          sync.Mutex // guards what follows
	connections int
	taken       int
	open        int
	mostOpen    int
}

func startDialog(t *testing.T, offer string, scripts ...[]string) (*dialogServer, int) {
	t.Helper()
	s := &dialogServer{t: t, offer: offer, scripts: scripts}
	l, err := tls.Listen("tcp", "127.0.0.1:0", goodTLS())
	if err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(nc) })
		}
	})
	t.Cleanup(func() { l.Close(); s.wg.Wait() })
	return s, l.Addr().(*net.TCPAddr).Port
}

func (s *dialogServer) count(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *dialogServer) serve(nc net.Conn) {
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	if nc.(*tls.Conn).Handshake() != nil {
		return
	}
	n := 0
	s.count(func() {
		n = s.connections
		s.connections++
		s.open++
		s.mostOpen = max(s.mostOpen, s.open)
	})
	defer s.count(func() { s.open-- })
	br := bufio.NewReader(nc)
	fmt.Fprint(nc, "220 fake.example.com\r\n")
	br.ReadString('\n')
	fmt.Fprintf(nc, "250-fake.example.com\r\n250-SIZE 10000000\r\n250 AUTH %s\r\n", s.offer)
	if n >= len(s.scripts) {
		s.t.Errorf("connection %d was not expected", n+1)
		return
	}
	in := false
	for _, line := range s.scripts[n] {
		if reply, ok := strings.CutPrefix(line, "S: "); ok {
			fmt.Fprint(nc, reply+"\r\n")
			in = strings.HasPrefix(reply, "235")
			continue
		}
		want := strings.TrimPrefix(strings.TrimPrefix(line, "C:"), " ")
		got, err := br.ReadString('\n')
		if err != nil || got != want+"\r\n" {
			s.t.Errorf("connection %d: got %q (%v), want %q", n+1, got, err, want)
			return
		}
	}
	s.rest(nc, br, in)
}

func (s *dialogServer) rest(nc net.Conn, br *bufio.Reader, in bool) {
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case verb == "QUIT":
			fmt.Fprint(nc, "221 bye\r\n")
			return
		case !in:
			fmt.Fprint(nc, "530 5.7.57 Client not authenticated to send mail.\r\n")
		case verb == "DATA":
			fmt.Fprint(nc, "354 go on\r\n")
			for line != ".\r\n" && err == nil {
				line, err = br.ReadString('\n')
			}
			s.count(func() { s.taken++ })
			fmt.Fprint(nc, "250 2.0.0 taken\r\n")
		default:
			fmt.Fprint(nc, "250 2.1.0 fine\r\n")
		}
	}
}

// tokens is a source that gives what it is told, in order; the last repeats.
type tokens struct {
	mu      sync.Mutex
	give    []string
	err     error // when there is none
	asked   []string
	dropped []string
}

func (s *tokens) token(_ context.Context, identity string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, identity)
	if len(s.give) == 0 {
		return "", s.err
	}
	t := s.give[0]
	if len(s.give) > 1 || s.err != nil {
		s.give = s.give[1:]
	}
	return t, nil
}

func (s *tokens) drop(_, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = append(s.dropped, token)
}

func oauthUpstream(t *testing.T, port int, source *tokens, change func(*Config)) *Upstream {
	t.Helper()
	cfg := whole(Config{Host: "127.0.0.1", Port: port, TLS: upstream.TLSImplicit, Settings: upstream.Settings{
		RootCAs: authority().Pool, Username: user, Token: source.token, DropToken: source.drop}})
	if change != nil {
		change(&cfg)
	}
	return newUpstream(t, cfg)
}

func TestTokenExchanges(t *testing.T) {
	const short = "short-token"
	in := "S: 235 2.7.0 Authentication successful"
	for name, c := range map[string]struct {
		offer  string
		want   []string // mechanisms
		token  string
		script []string
	}{
		"two steps": {"LOGIN XOAUTH2", nil, token,
			[]string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token), in}},
		"two steps when short": {"LOGIN XOAUTH2", nil, short,
			[]string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, short), in}},
		"words for a prompt": {"XOAUTH2", nil, token, []string{"C: AUTH XOAUTH2", "S: 334 go on, please",
			"C: " + xoauth2(user, token), in}},
		"nothing behind 334": {"XOAUTH2", nil, token, []string{"C: AUTH XOAUTH2", "S: 334",
			"C: " + xoauth2(user, token), in}},
		"first by default": {"PLAIN OAUTHBEARER XOAUTH2", nil, token,
			[]string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token), in}},
		"bearer if configured": {"PLAIN OAUTHBEARER XOAUTH2", []string{"OAUTHBEARER", "XOAUTH2"}, token,
			[]string{"C: AUTH OAUTHBEARER", "S: 334 ", "C: BEARER", in}},
		"bearer, short": {"OAUTHBEARER", nil, short, []string{"C: AUTH OAUTHBEARER BEARER", in}},
		"the first is not taken": {"XOAUTH2 OAUTHBEARER", nil, short,
			[]string{"C: AUTH XOAUTH2", "S: 504 5.7.4 Unrecognized authentication type", "C: AUTH OAUTHBEARER BEARER",
				in}},
		"bearer not read": {"OAUTHBEARER", nil, short, []string{"C: AUTH OAUTHBEARER BEARER", "S: 334 ", "C: BEARER",
			in}},
		"bearer not allowed": {"OAUTHBEARER", nil, short, []string{"C: AUTH OAUTHBEARER BEARER", "S: 501 5.5.4 no",
			"C: AUTH OAUTHBEARER", "S: 334", "C: BEARER", in}},
	} {
		t.Run(name, func(t *testing.T) {
			script := append([]string(nil), c.script...)
			s, port := startDialog(t, c.offer, script)
			for i := range script { // before the first connection
				script[i] = strings.ReplaceAll(script[i], "BEARER", "\x00")
				script[i] = strings.ReplaceAll(script[i], "OAUTH\x00", "OAUTHBEARER")
				script[i] = strings.ReplaceAll(script[i], "\x00",
					b64(fmt.Sprintf("n,a=%s,\x01host=127.0.0.1\x01port=%d\x01auth=Bearer %s\x01\x01", user, port,
						c.token)))
			}
			source := &tokens{give: []string{c.token}}
			u := oauthUpstream(t, port, source, func(cfg *Config) { cfg.Mechanisms = c.want })
			wantClasses(t, send(t, u, message(t)), "delivered")
			wantClasses(t, send(t, u, message(t)), "delivered") // on the same connection
			if s.connections != 1 || len(source.asked) != 1 {
				t.Errorf("%d connections, %d tokens", s.connections, len(source.asked))
			}
		})
	}
}

// A password is no substitute: with tokens configured only tokens are sent.
func TestTokensOnly(t *testing.T) {
	_, port := startDialog(t, "PLAIN LOGIN", nil)
	u := oauthUpstream(t, port, &tokens{give: []string{token}}, func(cfg *Config) { cfg.Password = password })
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || r.Reply.Enhanced != "4.7.9" {
		t.Errorf("got %s: %s", r.Class, r.Reply)
	}
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	const other = "another-token"
	refusal := "S: 535 5.7.3 Authentication unsuccessful [FR3P281CA0098.DEUP281.PROD.OUTLOOK.COM]"
	direct := func(tok string) []string {
		return []string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, tok), refusal}
	}
	explained := []string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token), "S: 334 " + errorChallenge, "C:",
		refusal}
	in := []string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, other), "S: 235 2.7.0 welcome"}
	for name, c := range map[string]struct {
		give    []string
		err     error
		scripts [][]string
		want    string
		reply   string
		dropped int
	}{
		"another one works": {[]string{token, other}, nil, [][]string{direct(token), in}, "delivered", "", 1},
		"explained before":  {[]string{token, other}, nil, [][]string{explained, in}, "delivered", "", 1},
		"another one, no more": {[]string{token, other}, nil, [][]string{direct(token), direct(other)},
			"account-fault", "535 5.7.3", 1},
		"there is no other": {[]string{token}, nil, [][]string{direct(token)}, "account-fault", "535 5.7.3", 1},
		"the next is not given": {[]string{token}, faultOf(mail.AccountFault), [][]string{direct(token)},
			"account-fault", "454 4.7.0 run login", 1},
		"nor now": {[]string{token}, faultOf(mail.BackPressure), [][]string{direct(token)},
			"back-pressure", "454 4.7.0 run login", 1},
		"temporary is no refusal": {[]string{token, other}, nil,
			[][]string{{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token),
				"S: 454 4.7.0 Temporary authentication failure"}}, "back-pressure", "454 4.7.0 Temp", 0},
		"nor is a wrong user name": {[]string{token, other}, nil,
			[][]string{{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token),
				"S: 501 5.5.124 Invalid XOAUTH2 auth data - User address provided is not valid"}}, "account-fault",
			"501 5.5.124", 0},
		"explained without end": {[]string{token, other}, nil,
			[][]string{{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token),
				"S: 334 " + errorChallenge, "C:", "S: 334 " + errorChallenge, "C: *", "S: 501 cancelled"}},
			"account-fault",
			"454 4.7.0", 0},
		"in without a token": {[]string{token, other}, nil, [][]string{{"C: AUTH XOAUTH2", "S: 235 2.7.0 sure"}},
			"account-fault", "454 4.7.0", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, port := startDialog(t, "LOGIN XOAUTH2", c.scripts...)
			source := &tokens{give: c.give, err: c.err}
			r := send(t, oauthUpstream(t, port, source, nil), message(t))
			wantClasses(t, r, c.want)
			if !strings.HasPrefix(r[0].Reply.String(), c.reply) {
				t.Errorf("reply %s", r[0].Reply)
			}
			if len(source.dropped) != c.dropped || c.dropped == 1 && source.dropped[0] != token {
				t.Errorf("dropped %q", source.dropped)
			}
			s.count(func() {
				if s.mostOpen != 1 || s.connections != len(c.scripts) {
					t.Errorf("%d connections, %d at a time", s.connections, s.mostOpen)
				}
			})
		})
	}
}

func TestBearerErrorChallenge(t *testing.T) { // RFC 7628 §4.3
	const tok = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
	script := []string{"", "S: 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIn0=", "C: AQ==",
		"S: 535 5.7.8 refused"}
	_, port := startDialog(t, "OAUTHBEARER", script)
	script[0] = "C: AUTH OAUTHBEARER " +
		b64(fmt.Sprintf("n,a=rel=2Cay=3D@example.com,\x01host=127.0.0.1\x01port=%d\x01auth=Bearer %s\x01\x01", port,
			tok))
	u := oauthUpstream(t, port, &tokens{give: []string{tok}},
		func(cfg *Config) { cfg.Username = "rel,ay=@example.com" })
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || r.Reply.String() != "535 5.7.8 refused" ||
		!errors.Is(r.Err, errErrorChallenge) || !strings.Contains(r.Err.Error(), "invalid_token") {
		t.Errorf("got %s: %s, %v", r.Class, r.Reply, r.Err)
	}
}

// Each identity logs in as itself, has its own connections, and its trouble is its own.
func TestIdentitiesOfTokens(t *testing.T) {
	ann, ben := "ann@example.com", "ben@example.com"
	s, port := startDialog(t, "XOAUTH2",
		[]string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(ann, token), "S: 235 2.7.0 welcome"},
		[]string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(ben, token), "S: 535 5.7.3 no such mailbox"})
	u := oauthUpstream(t, port, &tokens{give: []string{token}}, nil)
	for _, c := range []struct{ identity, want string }{{ann, "delivered"}, {ben, "account-fault"},
		{ann, "delivered"}} {
		slot, until := u.Reserve(time.Now(), c.identity)
		if slot == nil {
			t.Fatalf("%s waits until %v", c.identity, until)
		}
		r := use(slot, t.Context(), message(t))
		wantClasses(t, r, c.want)
		if r[0].Identity != c.identity {
			t.Errorf("identity %q", r[0].Identity)
		}
	}
	if slot, until := u.Reserve(time.Now(), ben); slot != nil || until.IsZero() {
		t.Error("the refused identity is not paused")
	}
	if s.taken != 2 {
		t.Errorf("%d taken", s.taken)
	}
}

type tokenErr struct{ class mail.Class }

func (e *tokenErr) Error() string             { return "AADSTS7000222" }
func (e *tokenErr) Unwrap() error             { return errDisk }
func (e *tokenErr) Class() mail.Class         { return e.class }
func (e *tokenErr) Reply() mail.Reply         { return mail.R(454, "4.7.0", "run login") }
func (e *tokenErr) RetryAfter() time.Duration { return 20 * time.Minute }

func faultOf(class mail.Class) error { return fmt.Errorf("fetch: %w", &tokenErr{class}) }

// Without a token nobody is dialled, and what the source says of its trouble is what the identity does.
func TestNoToken(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		want   mail.Class
		reply  string
		status upstream.Status
	}{
		"secret expired": {faultOf(mail.AccountFault), mail.AccountFault, "454 4.7.0 run login", upstream.Paused},
		"endpoint down":  {faultOf(mail.BackPressure), mail.BackPressure, "454 4.7.0 run login", upstream.BackingOff},
		"odd class":      {faultOf(mail.MessageFault), mail.BackPressure, "454 4.7.0 run login", upstream.BackingOff},
		"some error":     {errDisk, mail.BackPressure, "454 4.7.0 there is no access token now", upstream.BackingOff},
	} {
		s, port := startDialog(t, "XOAUTH2")
		u := oauthUpstream(t, port, &tokens{err: c.err}, nil)
		r := send(t, u, message(t))[0]
		if r.Class != c.want || r.Stage != mail.StageAuth || r.Reply.String() != c.reply || !errors.Is(r.Err, errDisk) {
			t.Errorf("%s: got %s at %s: %s, %v", name, r.Class, r.Stage, r.Reply, r.Err)
		}
		st := state(u)
		if st.Status != c.status || c.err != errDisk && time.Until(st.Until) < 19*time.Minute {
			t.Errorf("%s: %s until %v", name, st.Status, st.Until)
		}
		if s.connections != 0 {
			t.Errorf("%s: dialled", name)
		}
	}
}

// After a person has consented again nobody waits for the end of the pause.
func TestTryAgain(t *testing.T) {
	_, port := startDialog(t, "XOAUTH2", []string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + xoauth2(user, token),
		"S: 235 2.7.0 welcome"})
	source := &tokens{err: faultOf(mail.AccountFault)}
	u := oauthUpstream(t, port, source, nil)
	wantClasses(t, send(t, u, message(t)), "account-fault")
	if slot, until := u.Reserve(time.Now(), ""); slot != nil || until.IsZero() {
		t.Fatal("not paused")
	}
	told := make(chan struct{}, 1)
	u.OnChange(func() { told <- struct{}{} })
	source.mu.Lock()
	source.give = []string{token, token}
	source.mu.Unlock()
	u.TryAgain()
	<-told
	u.OnChange(nil)
	wantClasses(t, send(t, u, message(t)), "delivered")
}

func TestTokenForNobody(t *testing.T) {
	source := &tokens{give: []string{token}}
	u := oauthUpstream(t, 1, source, func(cfg *Config) { cfg.Username = "" })
	wantClasses(t, send(t, u, message(t)), "account-fault")
	if len(source.asked) != 0 {
		t.Error("a token for nobody was asked for")
	}
}

// Our own haste is nobody's fault.
func TestTokenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u := oauthUpstream(t, 1, nil, func(cfg *Config) {
		cfg.Token = func(ctx context.Context, _ string) (string, error) {
			cancel()
			return "", context.Cause(ctx)
		}
		cfg.DropToken = nil
	})
	wantClasses(t, sendCtx(t, ctx, u, message(t)), "deferral")
	if s := state(u); s.Status != upstream.Ready {
		t.Errorf("%s", s.Status)
	}
}

func TestTokensWantVerifiedTLS(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"none":     func(c *Config) { c.TLS = upstream.TLSNone },
		"insecure": func(c *Config) { c.InsecureSkipVerify = true },
	} {
		cfg := whole(Config{Settings: upstream.Settings{Token: (&tokens{}).token}})
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, port := startDialog(t, "XOAUTH2")
	u := oauthUpstream(t, port, &tokens{give: []string{token}}, func(cfg *Config) {
		cfg.Host = "wrong.example.com"
		cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		}
	})
	if r := send(t, u, message(t))[0]; r.Class != mail.AccountFault || r.Stage != mail.StageTLS {
		t.Errorf("got %s at %s: %s", r.Class, r.Stage, r.Reply)
	}
}

// A server that repeats what it did not understand must not bring the token into a log, a trace or a reply.
func TestTokenIsNotEchoed(t *testing.T) {
	line := xoauth2(user, token)
	for name, text := range map[string]string{
		"the line":     `535 5.5.1 Command unrecognized: "` + line[:400] + `"`,
		"its end":      `500 5.5.1 what is ` + line[len(line)-200:],
		"upper case":   `500 5.5.1 what is ` + strings.ToUpper(line[len(line)-200:]),
		"as it is":     `535 5.7.3 token ` + token[100:500] + ` is not good`,
		"out of step":  `250 2.0.0 ` + line[:300],
		"two lines":    "535-5.7.3 see\r\n535 5.7.3 " + line[60:120],
		"in challenge": "334 " + line,
	} {
		t.Run(name, func(t *testing.T) {
			_, port := startDialog(t, "XOAUTH2", []string{"C: AUTH XOAUTH2", "S: 334 ", "C: " + line, "S: " + text})
			var logged bytes.Buffer
			u := oauthUpstream(t, port, &tokens{give: []string{token}}, func(cfg *Config) {
				cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
				cfg.Timeouts.Command = 2 * time.Second
			})
			r := send(t, u, message(t))[0]
			all := strings.ToLower(fmt.Sprintf("%s %v %+v %s", r.Reply, r.Err, u.States(), &logged))
			for i := 0; i+16 <= len(token); i += 4 {
				if strings.Contains(all, strings.ToLower(token[i:i+16])) {
					t.Fatalf("the token is told: %s", all)
				}
			}
			secret := b64("Bearer " + token)[12:]
			for i := 0; i+16 <= len(secret); i++ {
				for _, s := range []string{secret, line[40:]} {
					if i+16 <= len(s) && strings.Contains(all, strings.ToLower(s[i:i+16])) {
						t.Fatalf("the token is told in base64: %s", all)
					}
				}
			}
		})
	}
}

func TestBearerRefusesWhatWouldEndIt(t *testing.T) {
	for _, c := range []struct{ user, token string }{{"a@b", ""}, {"a@b", "x y"}, {"a@b", "x\x01y"}, {"a@b", "ü"},
		{"a\x01b", "x"}, {"a\r\n", "x"}} {
		if _, err := bearer(c.user, c.token); err == nil {
			t.Errorf("%q: accepted", c)
		}
		x := &xoauth2Client{user: c.user, token: c.token}
		if _, err := x.Next(nil); err == nil {
			t.Errorf("%q: accepted", c)
		}
		if _, _, err := (&bearerClient{user: c.user, token: c.token}).Start(); err == nil {
			t.Errorf("%q: accepted", c)
		}
	}
}

func FuzzTokenChallenge(f *testing.F) {
	f.Add([]byte(""), []byte(`{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}`))
	f.Add([]byte("words"), []byte(`{"status":7}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		x := &xoauth2Client{user: "a@example.com", token: "t"}
		if r, err := x.Next(first); err != nil || string(r) != "user=a@example.com\x01auth=Bearer t\x01\x01" {
			t.Errorf("%q, %v", r, err)
		}
		if r, err := x.Next(second); err != nil || r == nil || len(r) != 0 {
			t.Errorf("%q, %v", r, err)
		}
		if _, err := x.Next(second); err == nil || x.Finish() == nil {
			t.Error("no end")
		}
		if err := x.challenged(); err == nil || mail.Printable(err.Error()) != err.Error() {
			t.Errorf("%q", err)
		}
	})
}
