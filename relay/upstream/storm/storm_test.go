package storm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
)

var morning = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)

// desk is a Watch with a clock that goes on by a second for each message.
type desk struct {
	t *testing.T
	w *Watch
	n int
}

func (d *desk) now() time.Time { return morning.Add(time.Duration(d.n) * time.Second) }

func (d *desk) delivered(login, domain string) {
	d.n++
	d.w.Delivered(d.now(), Attempt{Identity: "relay", Login: login, Domain: domain,
		Internal: domain == "office.example"})
}

func (d *desk) refused(login, domain, text string) Verdict {
	return d.refusal(login, domain, text, false)
}

func (d *desk) refusal(login, domain, text string, repeated bool) Verdict {
	d.n++
	v, _ := d.w.Refused(d.now(), Refusal{Attempt: Attempt{Identity: "relay", Login: login, Domain: domain,
		Internal: domain == "office.example"}, Stage: mail.StageDot, Reply: reply(text), Repeated: repeated})
	return v
}

// want checks a row of verdicts of one text.
func (d *desk) want(what string, want Verdict, got ...Verdict) {
	d.t.Helper()
	if slices.ContainsFunc(got, func(v Verdict) bool { return v != want }) {
		d.t.Errorf("%s: verdicts %v, want %d", what, got, want)
	}
}

const blockedText = "550 5.7.99 Account %d is on hold, ref %d"

func (d *desk) blocked(login, domain string) Verdict {
	return d.refused(login, domain, fmt.Sprintf(blockedText, d.n, d.n*7919))
}

// storm lets four refusals pass, of two logins to two domains, and begins a storm with the fifth.
func (d *desk) storm() {
	d.t.Helper()
	for i := range 4 {
		d.want("before the storm", Believe, d.blocked(fmt.Sprint("u", i%2), fmt.Sprint("d", i)))
	}
	d.want("the fifth", KeepIdentity, d.blocked("u0", "d9"))
}

func newDesk(t *testing.T) *desk { return &desk{t: t, w: New(false)} }

func TestAStormEndsWithADelivery(t *testing.T) {
	d := newDesk(t)
	d.storm()
	if s, ok := d.w.About("relay", reply(fmt.Sprintf(blockedText, 4711, 4712))); !ok || s.Kept != 1 ||
		len(s.Logins) != 2 || len(s.Domains) != 5 || s.Sender != "" {
		t.Errorf("%+v, %v", s, ok)
	}
	d.want("while it goes on", KeepIdentity, d.blocked("u7", "d1"), d.blocked("u8", "d1"))
	if all := d.w.Raging(); len(all) != 1 || all[0].Kept != 3 || all[0].Reply.Code == 0 {
		t.Errorf("raging: %+v", all)
	}
	d.delivered("u1", "d1")
	if _, ok := d.w.About("relay", reply(blockedText)); ok {
		t.Error("it goes on after a delivery")
	}
	if all := d.w.Raging(); len(all) != 0 {
		t.Errorf("raging after a delivery: %+v", all)
	}
	d.want("one delivery proves little", KeepMessage, d.blocked("u3", "d3"), d.refusal("u0", "d9", blockedText, true))
	for i := range 2 {
		d.delivered("u1", fmt.Sprint("d", i))
	}
	d.want("what others do not meet any more is true", Believe, d.refusal("u0", "d9", blockedText, true),
		d.blocked("u3", "d3"))
}

// Where a tenth gets through, or only mail to the own domain, the account is blocked all the same, and no delivery
// sends off what was kept.
func TestAPartialBlockStaysOne(t *testing.T) {
	for what, let := range map[string]func(n int) (domain string, ok bool){
		"a tenth":        func(n int) (string, bool) { return fmt.Sprint("d", n%7), n%10 == 9 },
		"internal mail":  func(n int) (string, bool) { return "office.example", n%2 == 1 },
		"mostly inside":  func(n int) (string, bool) { return "office.example", n%10 != 0 },
		"nothing at all": func(int) (string, bool) { return "", false },
	} {
		d, bounced, kept := newDesk(t), 0, 0
		for n := range 2000 {
			login := fmt.Sprint("u", n%13)
			if domain, ok := let(n); ok {
				d.delivered(login, domain)
				continue
			}
			if d.blocked(login, fmt.Sprint("d", n%7)) == Believe {
				bounced++
			} else {
				kept++
				if d.refusal(login, fmt.Sprint("d", n%7), blockedText, true) == Believe { // tried again at once
					bounced++
				}
			}
		}
		if bounced > 5 || kept < 100 {
			t.Errorf("%s passes: %d bounces, %d kept", what, bounced, kept)
		}
	}
}

// Whoever may send at all may send with a null reverse-path, too. That makes no second login of one: nobody pauses an
// upstream for others by having the provider refuse his own mail.
func TestANullReversePathIsNobodyElse(t *testing.T) {
	d := newDesk(t)
	d.delivered("boss", "d1")
	for i := range 4 {
		d.want("at first", Believe, d.blocked("mallory", fmt.Sprint("d", i)))
	}
	if v := d.blocked(Null, "d5"); v == KeepIdentity {
		t.Error("a fifth refusal with a null reverse-path pauses everybody")
	}
	d.want("his own waits", KeepSender, d.blocked("mallory", "d6"))
	d.want("one that may be anybody's", KeepMessage, d.blocked(Null, "d7"))
	d.want("his own still waits", KeepSender, d.blocked("mallory", "d8"))
	d.want("somebody else", KeepIdentity, d.blocked("boss", "d1"))
}

// An infected machine sends ten messages a second that are all refused, in one text or several, with its login's
// address and without one, while the others send one now and then: nobody but it waits.
func TestAFloodOfOneLoginPausesNobodyElse(t *testing.T) {
	for texts := 1; texts <= 3; texts++ {
		d, kept := newDesk(t), 0
		d.delivered("boss", "d1")
		for n := range 5000 {
			if n%40 == 39 {
				d.delivered(fmt.Sprint("u", n%7), fmt.Sprint("d", n%11))
				continue
			}
			login := "mallory"
			if n%3 == 0 {
				login = Null
			}
			text := []string{blockedText, "554 5.7.1 Refused for cause %d, see %d",
				"550 5.0.0 Not from here, number %d of %d"}[n%texts]
			switch d.refused(login, fmt.Sprint("e", n%50), fmt.Sprintf(text, n, n)) {
			case KeepIdentity:
				t.Fatalf("%d texts: message %d pauses everybody", texts, n)
			case Believe:
			default:
				kept++
			}
		}
		if kept == 0 {
			t.Errorf("%d texts: nothing was ever doubted", texts)
		}
	}
}

// One login to many domains: where nobody else shows that the account works, its mail is kept, and only its own where
// others send, too. When theirs gets through, it is this login's matter.
func TestOneLoginIsKeptUntilOthersGetThrough(t *testing.T) {
	d := newDesk(t)
	d.delivered("boss", "d1")
	for i := range 4 {
		d.want("at first", Believe, d.blocked("shop", fmt.Sprint("d", i)))
	}
	d.want("then", KeepSender, d.blocked("shop", "d4"), d.blocked("shop", "d5"))
	if s, ok := d.w.About("relay", reply(blockedText)); !ok || s.Sender != "shop" {
		t.Errorf("%+v, %v", s, ok)
	}
	for range 3 {
		d.delivered("boss", "d1")
	}
	d.want("others get through", Believe, d.blocked("shop", "d6"), d.blocked("shop", "d7"), d.blocked("shop", "d8"))
	for i := range 100 {
		d.want("for good", Believe, d.blocked("shop", fmt.Sprint("e", i)))
	}

	d = newDesk(t)
	d.delivered("boss", "d1")
	for i := range 5 {
		d.blocked("shop", fmt.Sprint("d", i))
	}
	d.want("somebody else meets it", KeepIdentity, d.blocked("boss", "d1"), d.blocked("shop", "d1"))

	d = newDesk(t) // nobody else is known
	for i := range 4 {
		d.want("alone", Believe, d.blocked("shop", fmt.Sprint("d", i)))
	}
	d.want("alone", KeepIdentity, d.blocked("shop", "d4"), d.blocked("shop", "d5"))
}

// Others' mail got through since the first refusal: it is the sender's or the message's matter, however much of it
// there is.
func TestWhatOthersDoNotMeetIsBelieved(t *testing.T) {
	d := newDesk(t)
	for i := range 400 {
		d.want("a burst", Believe, d.blocked("infected", fmt.Sprint("d", i)))
		if i%20 == 3 {
			d.delivered("boss", "d1")
		}
	}
	for range 400 {
		d.want("one device, one domain", Believe, d.blocked("scanner", "archive"))
	}
}

// A probe that only repeats what is known lets the next message find out more.
func TestRepeatedRefusalsPauseNobody(t *testing.T) {
	d := newDesk(t)
	d.storm()
	d.want("again", KeepMessage, d.refusal("u0", "d9", blockedText, true), d.refusal("u0", "d9", blockedText, true))
	d.want("another", KeepIdentity, d.blocked("u5", "d5"))
}

// A Watch that knows nothing, after a restart, learns from a kept message that its text was doubted.
func TestKeptMessagesOutliveARestart(t *testing.T) {
	d := newDesk(t)
	d.want("kept before", KeepMessage, d.refusal("u0", "d9", blockedText, true))
	for i := range 4 {
		d.want("and new ones", KeepMessage, d.blocked(fmt.Sprint("u", i), fmt.Sprint("d", i)))
	}
	d.want("and the storm", KeepIdentity, d.blocked("u7", "d7"))
}

func TestARuleOfAPersonEndsIt(t *testing.T) {
	d := newDesk(t)
	d.storm()
	d.w.Explained(reply(fmt.Sprintf(blockedText, 1, 2)))
	if _, ok := d.w.About("relay", reply(blockedText)); ok {
		t.Error("the storm goes on")
	}
}

// Where each sender is an account of its own, one that is blocked says nothing of the others, and several do.
func TestEachSenderIsAnAccount(t *testing.T) {
	w := New(true)
	send := func(login, domain string) Verdict {
		v, _ := w.Refused(morning, Refusal{Attempt: Attempt{Identity: login, Login: login, Domain: domain},
			Stage: mail.StageDot, Reply: reply(blockedText)})
		return v
	}
	for i := range 8 {
		w.Delivered(morning, Attempt{Identity: "fine", Login: "fine", Domain: "d"})
		if v := send("blocked", fmt.Sprint("d", i)); (v == KeepIdentity) != (i >= 4) {
			t.Errorf("refusal %d: %d", i, v)
		}
	}
	w = New(true)
	for i := range 8 {
		if v := send(fmt.Sprint("m", i), "d"); (v == KeepIdentity) != (i >= 4) {
			t.Errorf("mailbox %d: %d", i, v)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	w := New(true)
	for i := range 3 * maxIdentities {
		name := fmt.Sprint("u", i)
		at := Attempt{Identity: name, Login: name, Domain: name}
		w.Delivered(morning.Add(time.Duration(i)*time.Second), at)
		w.Refused(morning.Add(time.Duration(i)*time.Second), Refusal{Attempt: at, Stage: mail.StageDot,
			Reply: mail.R(550, fmt.Sprintf("5.%d.%d", i%999, i/999), strings.Repeat("w", i%50))})
	}
	if len(w.own) > maxIdentities || len(w.all.logins) > maxLogins || len(w.all.texts) > maxTexts {
		t.Errorf("%d identities, %d logins, %d texts", len(w.own), len(w.all.logins), len(w.all.texts))
	}
}

func TestSameTextWhateverChanges(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"550 5.7.708 Access denied, traffic not accepted from this IP. AS(7230) " +
			"[BM1PR01MB1076.INDPRD01.PROD.OUTLOOK.COM]",
			"550 5.7.708 Access denied, traffic not accepted from this IP. AS(7231) " +
				"[AM8P192MB1009.EURP192.PROD.OUTLOOK.COM]", true},
		{"550 <anna@a.example>: sender rejected", "550 <bob.smith+x@b.example>: sender rejected", true},
		{"550 limit reached, try after Mon, 22 Nov 2026 10:00:00 GMT",
			"550 limit reached, try after Tue, 1 Dec 2026 9:00 UTC", true},
		{"554 refused, see https://help.example/?id=abc&x=1", "554 refused, see https://help.example/?id=zzz", true},
		{"554 refused: qWxYzAbC", "554 refused: PlMnKoJi", true},
		{"554 refused \"Offer for Anna\" today", "554 refused \"Re: hello\" today", true},
		{"554 refused deadbeefcafe - gsmtp", "554 refused bada55decade - gsmtp", true},
		{"550 one two three four five six seven eight nine blue",
			"550 one two three four five six seven eight nine green", true},
		{"550 5.7.1 user unknown", "550 5.7.1 account suspended", false},
		{"550 5.7.1 no", "554 5.7.1 no", false},
		{"550 5.7.1 no", "550 5.7.2 no", false},
		{"554 MapiExceptionQuotaExceeded happened", "554 MapiExceptionLogonFailed happened", false},
	} {
		if got := Same(reply(c.a), reply(c.b)); got != c.same {
			t.Errorf("%q and %q: %v; %q, %q", c.a, c.b, got, Words(reply(c.a)), Words(reply(c.b)))
		}
	}
	if !Same(reply("550 user anna of shop may not send"), reply("550 user bob of desk may not send"), "anna", "bob",
		"shop", "desk") {
		t.Error("names of the message count as words")
	}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		stage mail.Stage
		text  string
		want  kind
	}{
		{mail.StageRcpt, "550 5.1.1 whatever", ofTheReceiver},
		{mail.StageDot, "550 5.1.1 whatever", ofTheReceiver},
		{mail.StageRcpt, "550 No such user here", ofTheReceiver},
		{mail.StageRcpt, "550 5.4.1 Recipient address rejected: Access denied.", ofTheReceiver},
		{mail.StageRcpt, "552 5.2.2 full", ofTheReceiver},
		{mail.StageDot, "554 5.2.2 Mailbox full", unnamed}, // our own
		{mail.StageDot, "554 virus found", ofTheContent},
		{mail.StageDot, "550 5.7.1 this message is likely unsolicited mail", ofTheContent},
		{mail.StageDot, "552 5.3.4 Message too big for system", ofTheContent},
		{mail.StageRcpt, "550 5.7.1 Client host rejected", unnamed},
		{mail.StageRcpt, "550 Your mailbox is disabled", unnamed},
		{mail.StageRcpt, "550 relay access denied, no such user here", unnamed},
		{mail.StageDot, "554 your account has been closed for phishing", unnamed},
		{mail.StageRcpt, "553 5.7.1 <a@b.example>: Sender address rejected: not logged in", unnamed},
		{mail.StageMail, "550 5.1.0 sender rejected", unnamed},
		{mail.StageDot, "550 5.7.1 unusual rate of unsolicited mail originating from your IP address", unnamed},
		{mail.StageDot, "550 5.7.501 Access denied, spam abuse detected", unnamed},
	} {
		if got := kindOf(c.stage, reply(c.text)); got != c.want {
			t.Errorf("%q at %s is %d, want %d", c.text, c.stage, got, c.want)
		}
	}
}
