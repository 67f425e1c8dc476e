package relay

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"postern/auth"
	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/trace"
	"postern/relay/upstream"
	"postern/relay/upstream/advice"
	"postern/relay/upstream/oauth"
)

// How often conditions are looked for. A pause of an upstream lasts five minutes at least, so that none is missed.
const (
	upstreamLook = 5 * time.Second
	queueAgeLook = 6   // rounds of upstreamLook
	expiryLook   = 120 // rounds of upstreamLook
	// expiryAhead is how long before its end a certificate is told of. A self-signed one renews itself at that time, so it is
	// told of when it has not.
	expiryAhead  = 30 * 24 * time.Hour
	renewalGrace = 24 * time.Hour
	// identityGrace is how long a sender's own mailbox must be refused to be told of: without one, its mail goes as the username.
	identityGrace = time.Minute
	// lockLinger keeps a lockout told of for a while: who guesses goes on guessing, and is one condition.
	lockLinger = time.Hour
	// refusalLife is how long the refusal of one sender stays told of without being met again; the queue tries at least daily.
	refusalLife  = 25 * time.Hour
	maxAttempted = 1000
)

// alerts looks for what hooks are to be told of. Most of it is looked at every few seconds; what would be missed so comes by
// itself: lockouts, and results of attempts.
type alerts struct {
	srv     *Server
	alerter *alert.Alerter
	kick    chan struct{} // look at everything now
	open    atomic.Bool   // somebody was told that an upstream is paused: look at what is delivered

	// What attempts met since the last look; whichever came last. A delivery alone proves little: it may have been under way
	// when the others were refused.
	mu        sync.Mutex // guards what follows
	refusals  map[attempted]trace.Event
	delivered map[attempted]bool

	paused map[*configured]map[string]bool // identities seen paused; of the goroutine that looks
}

// attempted is whom mail was offered to, as whom, and from whom it is.
type attempted struct{ upstream, identity, from string }

// alertFile is where it is kept, in data_dir, who has been told what.
const alertFile = "alerts.json"

func (s *Server) newAlerts(c *config.Config) (*alerts, error) {
	a := &alerts{srv: s, kick: make(chan struct{}, 1), paused: make(map[*configured]map[string]bool)}
	a.alerter = alert.New(alert.Options{
		File: filepath.Join(c.DataDir, alertFile), Logger: s.log,
		Count: func(e alert.Event, outcome string) { s.metrics.alerts.WithLabelValues(string(e), outcome).Inc() },
	})
	hooks, err := hooksOf(c)
	if err != nil {
		return nil, err
	}
	a.use(c, hooks)
	return a, nil
}

// use takes over the hooks of a configuration.
func (a *alerts) use(c *config.Config, hooks []alert.Hook) {
	a.alerter.Use(c.Hostname, hooks)
	a.open.Store(len(a.alerter.Open(alert.UpstreamPaused)) > 0)
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// hooksOf turns [[alert]] into what package alert needs.
func hooksOf(c *config.Config) ([]alert.Hook, error) {
	var hooks []alert.Hook
	for i, block := range c.Alerts {
		h := alert.Hook{Name: fmt.Sprintf("alert[%d]", i+1), URL: block.URL.Value(), QueueAge: block.QueueAge.Std()}
		for _, e := range block.Events {
			h.Events = append(h.Events, alert.Event(e))
		}
		if block.CAFile != "" {
			pem, err := textfile.Read(block.CAFile)
			if err == nil {
				h.RootCAs, err = upstream.Roots(pem)
			}
			if err != nil {
				return nil, fmt.Errorf("alert[%d].ca_file: %w", i+1, err)
			}
		}
		hooks = append(hooks, h)
	}
	return hooks, nil
}

// AlertTest is what became of the test of one hook.
type AlertTest struct {
	Hook string // alert[1]
	Host string
	Err  error // nil: taken. It does not contain the URL
}

// TestAlerts posts a test to the hooks of a configuration, one after the other; n counts from one, 0: all.
func TestAlerts(ctx context.Context, c *config.Config, n int) ([]AlertTest, error) {
	hooks, err := hooksOf(c)
	if err != nil {
		return nil, err
	}
	var tests []AlertTest
	for i, h := range hooks {
		if n == 0 || n == i+1 {
			tests = append(tests, AlertTest{h.Name, h.Host(), alert.Post(ctx, h, c.Hostname)})
		}
	}
	return tests, nil
}

// run looks for conditions until ctx ends, and tells of them a little longer.
func (a *alerts) run(ctx context.Context) {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { a.alerter.Run(ctx) })
	tick := time.NewTicker(upstreamLook)
	defer tick.Stop()
	for round := 0; ; round++ {
		a.look(ctx, round)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-a.kick:
			round = -1
		}
	}
}

func (a *alerts) look(ctx context.Context, round int) {
	if !a.alerter.Watched() {
		return
	}
	now := time.Now()
	a.upstreams(a.srv.state.Load(), now)
	a.disk(ctx, now)
	if round%queueAgeLook == 0 {
		a.queueAge(ctx, now)
	}
	if round%expiryLook == 0 {
		a.certificates(now)
		a.secrets(ctx, now)
		if users, err := a.srv.store.Users(ctx); err == nil {
			a.accounts(users, time.Time{})
		}
	}
}

// upstreams tells of identities that are paused, and of their end. An identity that merely has not been tried, after a restart or
// a reload, proves nothing: only what was seen paused here and works, or a delivery, ends what was told.
func (a *alerts) upstreams(st *state, now time.Time) {
	seen := make(map[*configured]map[string]bool)
	for _, up := range st.upstreams {
		before := a.paused[up]
		is := make(map[string]bool)
		for _, id := range up.States() {
			homeless := id.Identity != up.config.Username && up.homeless.has(id.Identity, now)
			switch {
			case id.Status == upstream.BackingOff || id.Status == upstream.Paused && homeless:
				is[id.Identity] = before[id.Identity] && !homeless
			case id.Status == upstream.Paused:
				is[id.Identity] = true
				if id.Identity == up.config.Username || now.Sub(id.Since) >= identityGrace {
					c := pausedCondition(up.config, id)
					up.tellStorm(&c, id.Identity, id.Reply)
					a.alerter.Begin(c)
				}
			}
		}
		for identity := range before {
			if !is[identity] {
				a.alerter.End(alert.UpstreamPaused, pausedSubject(up.config.Name, identity), "")
			}
		}
		seen[up] = is
	}
	a.paused = seen
	a.attempts(st, now)
	open := a.alerter.Open(alert.UpstreamPaused)
	for _, c := range open {
		name := c.Details["upstream"]
		if name != "" && !slices.ContainsFunc(st.upstreams, func(u *configured) bool { return u.config.Name == name }) {
			a.alerter.End(alert.UpstreamPaused, c.Subject, "Upstream "+name+" is not in the configuration any more.")
		}
	}
	a.open.Store(len(open) > 0)
}

// attempts ends what deliveries prove to have ended, and tells of senders that an upstream does not take mail from, though it
// lets us in.
func (a *alerts) attempts(st *state, now time.Time) {
	a.mu.Lock()
	refusals, delivered := a.refusals, a.delivered
	a.refusals, a.delivered = nil, nil
	a.mu.Unlock()
	for _, up := range st.upstreams {
		for at := range delivered {
			if at.upstream != up.config.Name {
				continue
			}
			a.alerter.End(alert.UpstreamPaused, refusedSubject(at.upstream, at.from), "")
			if !a.paused[up][at.identity] {
				a.alerter.End(alert.UpstreamPaused, pausedSubject(at.upstream, at.identity), "")
			}
		}
		for at, e := range refusals {
			if at.upstream == up.config.Name && !a.paused[up][at.identity] && up.isTold(e) {
				c := refusedCondition(up.config, e, now)
				up.tellStorm(&c, e.Identity, e.Reply)
				a.alerter.Begin(c)
			}
		}
	}
}

// result looks at a trace event: whether an attempt ends what was told, or meets what is to be told. It costs nothing to a
// message that is delivered while nobody was told of anything.
func (a *alerts) result(e trace.Event) {
	if lostReport(e) {
		a.alerter.Begin(reportCondition(e))
		return
	}
	good := e.Kind == trace.Delivered && a.open.Load()
	bad := e.Class == mail.AccountFault.String() && judged(mail.Stage(e.Stage)) && a.alerter.Watched()
	if !good && !bad {
		return
	}
	at := attempted{e.Upstream, e.Identity, e.From}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.refusals, at)
	delete(a.delivered, at)
	switch {
	case len(a.refusals)+len(a.delivered) >= maxAttempted: // until the next look
	case good && a.delivered == nil:
		a.delivered = map[attempted]bool{at: true}
	case good:
		a.delivered[at] = true
	case a.refusals == nil:
		a.refusals = map[attempted]trace.Event{at: e}
	default:
		a.refusals[at] = e
	}
}

// judged reports whether a stage is one at which a sender is refused.
func judged(s mail.Stage) bool {
	return s == mail.StageMail || s == mail.StageRcpt || s == mail.StageData || s == mail.StageDot
}

// recordResult traces an event of an attempt.
func (s *Server) recordResult(e trace.Event) {
	if lostReport(e) {
		s.log.Error("a report about undelivered mail cannot be delivered: the sender does not know", "id", e.ID, "rcpt", e.To,
			"upstream", e.Upstream, "reply", e.Reply.String())
	}
	if e.Kind == trace.Delivered {
		s.metrics.delivery.WithLabelValues(e.Upstream).Observe(e.Age.Seconds())
	}
	s.alerts.result(e)
	s.trace.Record(e)
}

func pausedSubject(upstream, identity string) string {
	if identity == "" {
		return "upstream " + upstream
	}
	return "upstream " + upstream + " as " + identity
}

func refusedSubject(upstream, from string) string {
	return "upstream " + upstream + ", sender " + from
}

func pausedCondition(u config.Upstream, st upstream.State) alert.Condition {
	c := alert.Condition{
		Event: alert.UpstreamPaused, Subject: pausedSubject(u.Name, st.Identity), Group: "upstream " + u.Name,
		Over: "It works again: mail flows.",
		Details: map[string]string{
			"upstream": u.Name, "identity": st.Identity, "provider": u.Provider, "host": u.Host, "reply": st.Reply.String(),
			"since": clock(st.Since), "next_try": clock(st.Until),
		},
	}
	c.Summary = fmt.Sprintf("The provider does not take our mail because of the account: %q. Nothing is lost: the mail waits, or takes the next upstream of its route, and this one is tried again at %s.",
		st.Reply.String(), st.Until.UTC().Format("15:04 MST"))
	advise(&c, u, advice.For(u.Provider, advice.AnyStage, st.Reply), st.Identity, "")
	return c
}

func refusedCondition(u config.Upstream, e trace.Event, now time.Time) alert.Condition {
	c := alert.Condition{
		Event: alert.UpstreamPaused, Subject: refusedSubject(u.Name, e.From), Group: "senders at upstream " + u.Name,
		Summary: fmt.Sprintf("The provider does not let us send as %s: %q. Nothing is lost: mail of this sender waits and is tried again; that of others flows.", e.From, e.Reply.String()),
		Over:    "It is not refused any more, or nothing from this sender has been tried for a day.",
		Until:   now.Add(refusalLife),
		Details: map[string]string{
			"upstream": u.Name, "identity": e.Identity, "provider": u.Provider, "host": u.Host, "reply": e.Reply.String(),
			"sender": e.From, "login": e.Login, "since": clock(e.Time),
		},
	}
	advise(&c, u, advice.For(u.Provider, mail.Stage(e.Stage), e.Reply), e.Identity, e.From)
	return c
}

// advise adds what is known to help, else where to look.
func advise(c *alert.Condition, u config.Upstream, known *advice.Advice, identity, sender string) {
	if known == nil {
		c.Summary += fmt.Sprintf(" What to do: look at the account at the provider, then run: postern upstream test %s", u.Name)
		return
	}
	known = known.Filled(identity, sender)
	c.Summary += " " + known.Cause + " What to do: " + strings.Join(known.Fix, " ")
	c.Details["cause"], c.Details["fix"], c.Details["source"] = known.Cause, strings.Join(known.Fix, " "), known.Source
}

// clock is how times stand in details.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// queueAge tells that mail waits for too long. It has ended when the oldest message is half as old: not for the moment
// between two of them.
func (a *alerts) queueAge(ctx context.Context, now time.Time) {
	q, err := a.srv.store.Stats(ctx)
	if err != nil {
		return // the store says so itself
	}
	age := time.Duration(0)
	if q.Messages > 0 && !q.Oldest.IsZero() {
		age = now.Sub(q.Oldest)
	}
	open := a.alerter.Open(alert.QueueAge)
	var hold []alert.Condition
	for _, threshold := range a.alerter.Thresholds() {
		told := slices.ContainsFunc(open, func(c alert.Condition) bool { return c.Details["threshold"] == threshold.String() })
		if age < threshold && (!told || age < threshold/2) {
			continue
		}
		held := ""
		if q.Held > 0 {
			held = fmt.Sprintf(", %d of them held for release", q.Held)
		}
		hold = append(hold, alert.Condition{
			Event: alert.QueueAge, Subject: "queue", Threshold: threshold,
			Summary: fmt.Sprintf("Mail waits: the oldest message for %s; %d in all%s. What to do: postern queue list says what each of them waits for.",
				config.Duration(age.Truncate(time.Second)), q.Messages, held),
			Over: "The queue is as young as it should be again.",
			Details: map[string]string{"threshold": threshold.String(), "oldest": clock(q.Oldest), "messages": fmt.Sprint(q.Messages),
				"held": fmt.Sprint(q.Held), "octets": fmt.Sprint(q.Bytes)},
		})
	}
	a.alerter.Set(alert.QueueAge, hold)
}

// certificates tells of certificates that we present and that end soon.
func (a *alerts) certificates(now time.Time) {
	var hold []alert.Condition
	for _, info := range a.srv.certs.Info() {
		ahead := expiryAhead
		if info.SelfSigned && a.srv.state.Load().config.TLS.CertFile == "" {
			ahead -= renewalGrace
		}
		if info.NotAfter.Sub(now) <= ahead {
			hold = append(hold, expiring("listeners", info.File, info.NotAfter, now, "mail programs and devices will not connect",
				"renew it and write the new one to the same file; it is read again without a restart"))
		}
	}
	for _, up := range a.srv.state.Load().upstreams {
		file := up.config.CertFile
		if file == "" {
			continue
		}
		end, err := endOf(file)
		if err != nil {
			hold = append(hold, told(a.alerter, alert.CertificateExpiry, file)...) // a file that is just being replaced
			continue
		}
		if end.Sub(now) <= expiryAhead {
			hold = append(hold, expiring("upstream "+up.config.Name, file, end, now, "the provider will not take our mail",
				"renew it at whoever made it, make it known to the provider, and write it to the same file"))
		}
	}
	a.alerter.Set(alert.CertificateExpiry, hold)
}

func expiring(where, file string, end, now time.Time, otherwise, fix string) alert.Condition {
	return alert.Condition{
		Event: alert.CertificateExpiry, Subject: file,
		Summary: fmt.Sprintf("The certificate of %s in %s %s: %s. What to do: %s.", where, file, ends(end, now), otherwise, fix),
		Over:    "The certificate was renewed, or is not used any more.",
		Details: map[string]string{"file": file, "used_by": where, "ends": clock(end)},
	}
}

// ends says in words when something ends.
func ends(end, now time.Time) string {
	day := end.UTC().Format(time.DateOnly)
	left := end.Sub(now)
	switch {
	case left <= 0:
		return "ended on " + day
	case left < 48*time.Hour:
		return fmt.Sprintf("ends on %s, in %d hours", day, int(left.Hours()))
	}
	return fmt.Sprintf("ends on %s, in %d days", day, int(left.Hours()/24))
}

// endOf reads the end of the first certificate in a PEM file.
func endOf(file string) (time.Time, error) {
	all, err := anchors(file)
	if err != nil {
		return time.Time{}, err
	}
	if len(all) == 0 {
		return time.Time{}, errors.New("there is no certificate in it")
	}
	return all[0].NotAfter, nil // leaf first
}

// secrets tells of what we log in with at providers and that ends soon.
func (a *alerts) secrets(ctx context.Context, now time.Time) {
	var hold []alert.Condition
	for _, up := range a.srv.state.Load().upstreams {
		if up.tokens == nil {
			continue
		}
		if err := up.tokens.source.Load(ctx); err != nil && !errors.Is(err, oauth.ErrNoGrant) {
			hold = append(hold, told(a.alerter, alert.SecretExpiry, secretSubject(up.config.Name, "consent"))...)
		}
		for _, e := range up.tokens.source.Expiries(now) {
			if !e.Soon {
				continue
			}
			about := ""
			if e.Estimated {
				about = " (as far as is known)"
			}
			fix := e.Fix
			hold = append(hold, alert.Condition{
				Event: alert.SecretExpiry, Subject: secretSubject(up.config.Name, e.What),
				Summary: fmt.Sprintf("The %s that upstream %s is logged in with %s%s; without it no mail leaves there. What to do: %s.", e.What, up.config.Name, ends(e.At, now), about, strings.TrimSuffix(fix, ".")),
				Over:    "It was renewed, or is not used any more.",
				Details: map[string]string{"upstream": up.config.Name, "what": e.What, "ends": clock(e.At), "estimated": fmt.Sprint(e.Estimated), "fix": fix},
			})
		}
	}
	a.alerter.Set(alert.SecretExpiry, hold)
}

func secretSubject(upstream, what string) string { return "upstream " + upstream + ", " + what }

// told returns a condition as it was told, for when it cannot be looked at now.
func told(a *alert.Alerter, e alert.Event, subject string) []alert.Condition {
	return slices.DeleteFunc(a.Open(e), func(c alert.Condition) bool { return c.Subject != subject })
}

// lockedOut tells that somebody guesses passwords.
func (a *alerts) lockedOut(l auth.Lock) {
	if !a.alerter.Watched() {
		return
	}
	login := mail.Printable(mail.Cut(l.Login, 256))
	c := alert.Condition{
		Event: alert.LoginLocked, Until: l.Until.Add(lockLinger),
		Over:    "There has been no further lockout for an hour.",
		Details: map[string]string{"login": login, "until": clock(l.Until), "failures": fmt.Sprint(l.Failures)},
	}
	from := "others"
	if l.Client.IsValid() {
		from = lockedAddress(l)
		c.Details["client"] = from
	}
	c.Subject = lockSubject(l)
	until := l.Until.UTC().Format("15:04 MST")
	login, plain := loginInWords(login)
	guessed := "a generated one cannot be guessed: postern user password " + login
	if !plain {
		guessed = "a generated one cannot be guessed"
	}
	switch {
	case login == "":
		c.Group = "addresses"
		c.Summary = fmt.Sprintf("From %s came %d different wrong passwords: it is locked out until %s. What to do: if it is yours, look for a device with an old password there, then run: postern user unlock %s; else keep it out with a firewall. See: postern trace --kind auth-fail", from, l.Failures, until, from)
	case !l.Client.IsValid() && a.isNobodys(l.Login): // a group of their own: what guessers make up must not hide accounts
		c.Group = "logins that nobody has"
		c.Summary = fmt.Sprintf("Somebody tried %d different wrong passwords for login %s, which nobody has here. What to do: nothing, unless one of your devices has a mistyped login. See: postern trace --kind auth-fail", l.Failures, login)
	case !l.Client.IsValid():
		c.Group = "logins"
		c.Summary = fmt.Sprintf("Somebody tried %d different wrong passwords for login %s: until %s it is open only to addresses that it was used from before. What to do: if its owner has not forgotten the password, somebody guesses it; %s", l.Failures, login, until, guessed)
	default:
		c.Group = "logins"
		c.Summary = fmt.Sprintf("From %s, where login %s is used, came %d different wrong passwords for it: it is locked out there until %s. What to do: look for a device or program there with an old password.", from, login, l.Failures, until)
	}
	a.alerter.Begin(c)
}

// lifted tells that a person has ended a lockout.
func (a *alerts) lifted(l auth.Lock) {
	a.alerter.End(alert.LoginLocked, lockSubject(l), "A person has ended the lockout.")
}

func lockSubject(l auth.Lock) string {
	login, _ := loginInWords(mail.Printable(mail.Cut(l.Login, 256)))
	switch {
	case l.Login == "":
		return "address " + lockedAddress(l)
	case !l.Client.IsValid():
		return "login " + login
	}
	return "login " + login + " from " + lockedAddress(l)
}

// lockedAddress is an address as people write it, or the network that is locked with it.
func lockedAddress(l auth.Lock) string {
	if l.Client.IsSingleIP() {
		return l.Client.Addr().String()
	}
	return l.Client.String()
}

// lookupTime bounds how long a lockout waits to know whose login it is about.
const lookupTime = 2 * time.Second

// isNobodys reports a login that no source knows. While they cannot be asked, it is taken for somebody's.
func (a *alerts) isNobodys(login string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	_, err := a.srv.auth.Lookup(ctx, login)
	return errors.Is(err, auth.ErrUnknownLogin)
}

// loginInWords is a login as it may stand in a sentence. Whoever guesses makes logins up, and people paste commands and follow
// links: one that is not plain is quoted, is no link, and belongs in no command.
func loginInWords(login string) (words string, plain bool) {
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("@._+-", r)
	}
	if !strings.ContainsFunc(login, odd) && !strings.HasPrefix(login, "-") {
		return login, true
	}
	return strconv.Quote(strings.ReplaceAll(login, "://", ": //")), false
}

// limitReached tells that a login was locked because it went over a limit whose policy says so.
func (a *alerts) limitReached(login, why string) {
	a.alerter.Begin(alert.Condition{
		Event: alert.LoginLocked, Subject: limitSubject(login), Group: "limits",
		Summary: fmt.Sprintf("Login %s was locked: %s. Its password may be in other hands. What to do: look at what it sent with postern trace --login %s, give it a new password, then run: postern user unlock %s", login, why, login, login),
		Over:    "The login was unlocked or removed.",
		Details: map[string]string{"login": login, "reason": why},
	})
}

func limitSubject(login string) string { return "login " + login + ", over a limit" }

// accounts ends what was told of logins that a person has seen to: those over a limit when they are unlocked, guessed ones
// when they were changed after since.
func (a *alerts) accounts(users []auth.User, since time.Time) {
	for _, c := range a.alerter.Open(alert.LoginLocked) {
		login := c.Details["login"]
		i := slices.IndexFunc(users, func(u auth.User) bool { return u.Login == login })
		switch {
		case login == "":
		case c.Subject == limitSubject(login):
			if i < 0 || !users[i].Locked {
				a.alerter.End(c.Event, c.Subject, "")
			}
		case i >= 0 && !since.IsZero() && users[i].Changed.After(since):
			a.alerter.End(c.Event, c.Subject, "A person has changed the account: the lockout has ended.")
		}
	}
}
