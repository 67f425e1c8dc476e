package fakeprovider

import (
	"cmp"
	"context"
	"crypto/tls"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/fakesmtp"
)

const maxMessage = 150 << 20 // octets

// SMTPOptions configure the submission server. What is 0 is as at Exchange Online
// (https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description, "limits").
type SMTPOptions struct {
	// TLS is for STARTTLS, without which nothing but EHLO is answered.
	TLS *tls.Config
	// Valid checks access tokens; OAuth.Valid does. An identity of AnyMailbox is good for each of Mailboxes.
	Valid func(token string) (identity string, scopes []string, ok bool)
	// Scope must be among those of a token; "" is any.
	Scope string
	// Mailboxes are the accounts that there are; empty: any.
	Mailboxes []string

	Hostname    string        // "" is smtp.fake.example
	Connections int           // at a time for each mailbox; 0 is 3
	Messages    int           // for each mailbox in a Window; 0 is 30
	Window      time.Duration // 0 is a minute
	// Now is the clock; nil is time.Now. Advance moves it on.
	Now func() time.Time
}

// Regime is how the server treats its clients. The zero Regime is an ordinary day: the limits hold, and a mailbox
// sends as itself only.
type Regime struct {
	// Explain sends the error challenge of XOAUTH2 before 535, as Google does.
	Explain bool
	// Login answers a login with a good token; "" lets it in. LoginDisabled is one that Exchange Online has.
	Login func(mailbox string) string
	// SendAs lets a mailbox use another reverse-path.
	SendAs func(mailbox, from string) bool
	// Quota is how many messages a mailbox may send in 24 hours; 0 is any number.
	Quota int
	// Full reports that the mailbox has no room for its sent items.
	Full func(mailbox string) bool
	// Silent is asked once for each message that is taken, one at a time: true keeps its reply back for ever.
	Silent func(Arrival) bool
	// IdleTimeout is after how much silence the server closes; 0: it waits until the client goes.
	IdleTimeout time.Duration
	// Latency is between the final dot and its reply.
	Latency time.Duration
}

// LoginDisabled is what a tenant or mailbox answers where SMTP AUTH is switched off.
const LoginDisabled = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the " +
	"Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information."

// Arrival is one message that the server took.
type Arrival struct {
	Mailbox  string // who was logged in
	From     string
	To       []string
	Data     []byte // as it came, dots unstuffed
	At       time.Time
	Silent   bool // the client was not told
	TLS      string
	Protocol string // XOAUTH2
}

// SMTPCounts is what the server has met. MostConnections and MostMessages are by mailbox: the most at a time, and the
// most that were offered in one Window, refused ones included.
type SMTPCounts struct {
	Connections, Open     int
	Logins, RefusedLogins int
	MostConnections       map[string]int
	MostMessages          map[string]int
	// Refused counts replies by what they are for: "connections", "rate", "quota", "send-as", "full".
	Refused map[string]int
}

// SMTP is a fake submission server. Listen serves it on loopback, Dial without a socket.
type SMTP struct {
	*fakesmtp.Server
	o SMTPOptions

	mu        sync.Mutex // guards what follows
	skew      time.Duration
	regime    Regime
	mailboxes map[string]*smtpMailbox
	arrivals  []Arrival
	changed   chan struct{} // closed at the next arrival
	counts    SMTPCounts
}

// smtpMailbox is what the server knows of one account. Guarded by SMTP.mu.
type smtpMailbox struct {
	open    int
	offered []time.Time // of messages within the Window, refused ones included
	allowed []time.Time // of those that were within the rate
	day     []time.Time // taken within 24 hours
}

// NewSMTP makes a server.
func NewSMTP(o SMTPOptions) *SMTP {
	o.Connections, o.Messages = cmp.Or(o.Connections, 3), cmp.Or(o.Messages, 30)
	o.Window, o.Hostname = cmp.Or(o.Window, time.Minute), cmp.Or(o.Hostname, "smtp.fake.example")
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &SMTP{
		o: o, mailboxes: map[string]*smtpMailbox{}, changed: make(chan struct{}),
		counts: SMTPCounts{MostConnections: map[string]int{}, MostMessages: map[string]int{},
			Refused: map[string]int{}},
	}
	s.Server = fakesmtp.New(fakesmtp.Config{
		Hostname: o.Hostname, TLS: o.TLS, Require: true, Size: maxMessage, Idle: 5 * time.Minute,
		Extensions: []string{"SIZE " + strconv.Itoa(maxMessage), "PIPELINING", "DSN", "ENHANCEDSTATUSCODES",
			"8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"},
		Mechanisms: []string{"LOGIN", "XOAUTH2"}, // no PLAIN
		Login:      s.login, Hook: s.hook, Take: s.take, Closed: s.exit,
	})
	return s
}

// Set changes the regime from now on.
func (s *SMTP) Set(r Regime) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regime = r
}

// Advance moves the clock on.
func (s *SMTP) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew += d
}

func (s *SMTP) nowLocked() time.Time { return s.o.Now().Add(s.skew) }

// Arrivals is what the server took, in order.
func (s *SMTP) Arrivals() []Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Arrival(nil), s.arrivals...)
}

// Wait waits until there are n arrivals and returns them.
func (s *SMTP) Wait(ctx context.Context, n int) ([]Arrival, error) {
	for {
		s.mu.Lock()
		have, changed := len(s.arrivals), s.changed
		s.mu.Unlock()
		if have >= n {
			return s.Arrivals(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s.Arrivals(), ctx.Err()
		}
	}
}

// Counts is what the server has met so far.
func (s *SMTP) Counts() SMTPCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, met := s.counts, s.Server.Counts()
	c.Connections, c.Open, c.Logins, c.RefusedLogins = met.Connections, met.Open, met.Logins, met.Refused
	c.MostConnections, c.MostMessages = maps.Clone(c.MostConnections), maps.Clone(c.MostMessages)
	c.Refused = maps.Clone(c.Refused)
	return c
}

// present is the regime in force.
func (s *SMTP) present() Regime {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.regime
}

var authLine = regexp.MustCompile(`(?i)^AUTH (LOGIN|XOAUTH2)( |$)`)

// hook answers in Exchange Online's words.
func (s *SMTP) hook(c *fakesmtp.Session, verb, line string) fakesmtp.Action {
	switch {
	case verb == fakesmtp.Connect:
		return fakesmtp.Action{Reply: "220 " + s.o.Hostname + " Microsoft ESMTP MAIL Service ready (fake)"}
	case !c.TLS || c.User != "":
	case verb == "AUTH" && !authLine.MatchString(line):
		return fakesmtp.Action{Reply: "504 5.7.4 Unrecognized authentication type"}
	case verb == "MAIL" || verb == "RCPT" || verb == "DATA":
		return fakesmtp.Action{Reply: "530 5.7.57 Client not authenticated to send mail."}
	}
	return fakesmtp.Action{}
}

// login admits tokens only. LOGIN is offered and refused: passwords are switched off.
func (s *SMTP) login(c *fakesmtp.Session, mechanism, user, token string) (refusal string) {
	if mechanism == "LOGIN" {
		return "535 5.7.139 Authentication unsuccessful, basic authentication is disabled."
	}
	regime := s.present()
	if !s.admits(user, token) {
		if regime.Explain {
			answer, err := c.Challenge(`{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}`)
			if err != nil || answer != "" {
				return "501 5.5.2 an empty line was expected"
			}
		}
		return "535 5.7.3 Authentication unsuccessful [" + s.o.Hostname + "]"
	}
	user = strings.ToLower(user)
	if regime.Login != nil {
		if refusal := regime.Login(user); refusal != "" {
			return refusal
		}
	}
	s.enter(user)
	return ""
}

// admits reports whether the token is good for the mailbox.
func (s *SMTP) admits(user, token string) bool {
	identity, scopes, ok := s.o.Valid(token)
	if !ok || s.o.Scope != "" && !slices.Contains(scopes, s.o.Scope) {
		return false
	}
	exists := len(s.o.Mailboxes) == 0 || slices.ContainsFunc(s.o.Mailboxes,
		func(m string) bool { return strings.EqualFold(m, user) })
	return exists && (identity == AnyMailbox || strings.EqualFold(identity, user))
}

// enter notes that a connection is a mailbox's from now on.
func (s *SMTP) enter(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailboxes[user]
	if m == nil {
		m = new(smtpMailbox)
		s.mailboxes[user] = m
	}
	m.open++
	s.counts.MostConnections[user] = max(s.counts.MostConnections[user], m.open)
}

func (s *SMTP) exit(c *fakesmtp.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.User != "" {
		s.mailboxes[strings.ToLower(c.User)].open--
	}
}

// take answers a whole message.
func (s *SMTP) take(c *fakesmtp.Session, m fakesmtp.Message) fakesmtp.Action {
	from, _, _ := fakesmtp.Path(m.From)
	a := Arrival{
		Mailbox: strings.ToLower(c.User), From: strings.ToLower(from), Data: m.Data, Protocol: "XOAUTH2",
		TLS: tls.VersionName(c.ConnectionState().Version),
	}
	for _, argument := range m.To {
		to, _, _ := fakesmtp.Path(argument)
		a.To = append(a.To, to)
	}
	regime := s.present()
	time.Sleep(regime.Latency)
	reply, silent := s.record(a)
	if !silent {
		return fakesmtp.Action{Reply: reply}
	}
	if regime.IdleTimeout > 0 {
		c.CutAfter(regime.IdleTimeout)
	}
	return fakesmtp.Action{Stall: true} // until the client goes, or the server is closed
}

// within drops what is older than the window. Times are in order.
func within(times []time.Time, since time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(since) {
		times = times[1:]
	}
	return times
}

// record writes a message into the ledger if it is taken. The second result: say nothing.
func (s *SMTP) record(a Arrival) (reply string, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, now := s.mailboxes[a.Mailbox], s.nowLocked()
	m.offered = append(within(m.offered, now.Add(-s.o.Window)), now)
	m.allowed = within(m.allowed, now.Add(-s.o.Window))
	m.day = within(m.day, now.Add(-24*time.Hour))
	s.counts.MostMessages[a.Mailbox] = max(s.counts.MostMessages[a.Mailbox], len(m.offered))
	if reply := s.refusalLocked(m, &a); reply != "" {
		return reply, false
	}
	m.allowed, m.day = append(m.allowed, now), append(m.day, now)
	a.At = now
	a.Silent = s.regime.Silent != nil && s.regime.Silent(a)
	s.arrivals = append(s.arrivals, a)
	close(s.changed)
	s.changed = make(chan struct{})
	return "250 2.0.0 OK <" + strconv.Itoa(len(s.arrivals)) + "@" + s.o.Hostname + "> [Hostname=" + s.o.Hostname +
		"]", a.Silent
}

// refusalLocked gives the refusals, in the words of Exchange Online.
func (s *SMTP) refusalLocked(m *smtpMailbox, a *Arrival) string {
	where := " [Hostname=" + s.o.Hostname + "]"
	refuse := func(why, reply string) string {
		s.counts.Refused[why]++
		return reply + where
	}
	r := &s.regime
	switch {
	case m.open > s.o.Connections:
		return refuse("connections",
			"432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more "+
				"information.")
	case len(m.allowed) >= s.o.Messages:
		return refuse("rate", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded")
	case r.Quota > 0 && len(m.day) >= r.Quota:
		return refuse("quota",
			"554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message "+
				"due to a permanent exception with message The message can't be submitted because the sender's "+
				"submission quota was exceeded.")
	case r.Full != nil && r.Full(a.Mailbox):
		return refuse("full",
			"554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException; Failed to process "+
				"message due to a permanent exception")
	case a.From != a.Mailbox && (r.SendAs == nil || !r.SendAs(a.Mailbox, a.From)):
		return refuse("send-as",
			"554 5.2.252 SendAsDenied; "+a.Mailbox+" not allowed to send as "+
				""+a.From+"; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied")
	}
	return ""
}
