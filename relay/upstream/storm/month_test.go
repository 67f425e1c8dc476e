package storm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
)

// office is a simulated one: logins that send on weekdays, and whatever else sends beside them.
type office struct {
	t      *testing.T
	rng    *rand.Rand
	watch  *Watch
	now    time.Time
	logins int
	id     int
	// blocked makes the account refuse everything outside; nil: it does not.
	blocked *mail.Reply
	stage   mail.Stage

	bounced, kept, delivered int
	tripped                  []string
}

// fault is what is wrong with one message; the zero value is nothing.
type fault struct {
	stage mail.Stage
	reply mail.Reply
}

var (
	unknownUsers = []string{
		"550 5.1.1 <%[1]s@%[2]s>: Recipient address rejected: User unknown in virtual mailbox table",
		"550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking %[3]s - gsmtp",
		"550 5.4.1 Recipient address rejected: Access denied. AS(%[3]s)",
		"550 No such user here",
		"550 5.2.1 The email account that you tried to reach is disabled",
		"552 5.2.2 mailbox full",
		"550 Empfaenger unbekannt", // in no list
	}
	refusedContent = []string{
		"554 5.7.1 virus Eicar-%[3]s found",
		"550 5.7.1 [192.0.2.7] Our system has detected that this message is likely unsolicited mail. %[3]s",
		"552 5.3.4 Message size exceeds fixed maximum message size",
	}
	refusedOddly = []string{
		"554 5.7.1 Refused by local policy (%[3]s)",
		"550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction " +
			"check failed %[3]s",
		"554-Transaction failed\n554-Reject due to policy restrictions.",
	}
)

func (o *office) say(texts []string, stage mail.Stage, n int, local, domain string) fault {
	o.id++
	text := texts[n%len(texts)]
	return fault{stage, reply(fmt.Sprintf(text+"%.0[3]s%.0[2]s%.0[1]s", local, domain,
		fmt.Sprintf("q%dx%d", o.id, o.rng.IntN(1e6))))}
}

func (o *office) dead(n int, local, domain string) fault {
	return o.say(unknownUsers, mail.StageRcpt, n, local, domain)
}

// reply reads a reply as it stands in a list.
func reply(text string) mail.Reply {
	r := mail.Reply{Text: text[4:]}
	fmt.Sscan(text[:3], &r.Code)
	var a, b, c int
	if n, _ := fmt.Sscanf(r.Text, "%d.%d.%d", &a, &b, &c); n == 3 {
		r.Enhanced = fmt.Sprintf("%d.%d.%d", a, b, c)
		r.Text = r.Text[min(len(r.Enhanced)+1, len(r.Text)):]
	}
	return r
}

// send offers one message.
func (o *office) send(login, local, domain string, f fault) Verdict {
	at := Attempt{Identity: "relay", Login: login, Domain: domain, Internal: domain == "office.example"}
	if o.blocked != nil && !at.Internal {
		f = fault{o.stage, *o.blocked}
	}
	if f.stage == "" {
		o.delivered++
		o.watch.Delivered(o.now, at)
		return Believe
	}
	v, begun := o.watch.Refused(o.now, Refusal{Attempt: at, Stage: f.stage, Reply: f.reply,
		Personal: []string{local, domain, login}})
	if begun {
		o.tripped = append(o.tripped, fmt.Sprintf("%s %s to %s: %s", o.now.Format("Mon 15:04"), login, domain, f.reply))
	}
	if v == Believe {
		o.bounced++
	} else {
		o.kept++
	}
	return v
}

func (o *office) domain() string { return fmt.Sprintf("customer%d.example", o.rng.IntN(300)) }
func (o *office) person() string { return fmt.Sprintf("user%d", o.rng.IntN(o.logins)) }

// person sends one message as people do: most inside or to customers, now and then to somebody who is not there.
func (o *office) personSends() {
	login, local, domain := o.person(), "info", o.domain()
	switch n := o.rng.IntN(1000); {
	case n < 350:
		o.send(login, local, "office.example", fault{})
	case n < 375:
		o.send(login, "typo", domain, o.dead(o.rng.IntN(100), "typo", domain))
	case n < 380:
		o.send(login, local, domain, o.say(refusedContent, mail.StageDot, o.rng.IntN(3), local, domain))
	case n < 385:
		o.send(login, local, domain, o.say(refusedOddly, mail.StageDot, o.rng.IntN(3), local, domain))
	case n < 400:
		o.send(Null, local, domain, fault{}) // out of office
	case login == "user0" && n < 600: // whose address book is broken
		o.send(login, local, domain, o.dead(0, local, domain))
	default:
		o.send(login, local, domain, fault{})
	}
}

// newsletter goes to many at once; dead is the share of addresses that are gone.
func (o *office) newsletter(dead float64, text int) {
	for range 200 + o.rng.IntN(2000) {
		o.now = o.now.Add(time.Duration(o.rng.IntN(3000)) * time.Millisecond)
		local, domain := fmt.Sprintf("reader%d", o.rng.IntN(1e6)), o.domain()
		f := fault{}
		if o.rng.Float64() < dead {
			f = o.dead(text, local, domain)
		}
		o.send("newsletter", local, domain, f)
	}
}

// burst is one login whose machine sends viruses.
func (o *office) burst() {
	login, text := o.person(), o.rng.IntN(2)
	for range 50 + o.rng.IntN(300) {
		o.now = o.now.Add(time.Second)
		domain := o.domain()
		o.send(login, "info", domain, o.say(refusedContent, mail.StageDot, text, "info", domain))
	}
}

// day is one, with its night. A device scans to an address that is gone, every minute while nobody else sends.
func (o *office) day() {
	midnight := o.now.Truncate(24 * time.Hour)
	weekend := midnight.Weekday() == time.Saturday || midnight.Weekday() == time.Sunday
	for minute := range 24 * 60 {
		at := midnight.Add(time.Duration(minute) * time.Minute)
		if o.now = later(o.now, at); o.now.Sub(at) > time.Minute {
			continue // a newsletter took so long
		}
		o.send("scanner", "gone", "archive.example", o.dead(3, "gone", "archive.example"))
		if minute%10 == 0 {
			o.send("monitor", "ops", "pager.example", o.say(refusedOddly, mail.StageDot, 0, "ops", "pager.example"))
		}
		if !weekend && minute >= 8*60 && minute < 18*60 {
			for range o.rng.IntN(2 + o.logins/20) {
				o.personSends()
			}
		} else if o.rng.IntN(200) == 0 {
			o.personSends()
		}
	}
	o.now = midnight.Add(24 * time.Hour)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func newOffice(t *testing.T, seed uint64, bySender bool) *office {
	rng := rand.New(rand.NewPCG(seed, 7))
	return &office{t: t, rng: rng, watch: New(bySender), now: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC),
		logins: 2 + rng.IntN(200)}
}

// A month of honest mail trips nothing, whatever goes wrong in it: typing errors, a newsletter with 30 % of dead
// addresses by day and by night, one login with a broken address book, a device that sends to a dead address all the
// time, a burst of viruses from one machine.
func TestAnHonestMonthTripsNothing(t *testing.T) {
	t.Parallel()
	months := uint64(8)
	if testkit.Race { // it takes its time, and has one goroutine
		months = 1
	}
	for seed := range months {
		o := newOffice(t, seed, seed%4 == 3)
		for day := range 30 {
			switch {
			case day%7 == 2:
				o.now = o.now.Add(10 * time.Hour)
				o.newsletter(0.3, o.rng.IntN(7))
			case day%7 == 5: // at night of a quiet day
				o.now = o.now.Add(2 * time.Hour)
				o.newsletter(0.3, o.rng.IntN(7))
			case day%10 == 4:
				o.now = o.now.Add(3 * time.Hour)
				o.burst()
			}
			o.day()
		}
		if len(o.tripped) > 0 || o.kept > 0 {
			t.Errorf("seed %d, %d logins: %d of %d refusals were not believed: %q", seed, o.logins, o.kept,
				o.kept+o.bounced, o.tripped[:min(5, len(o.tripped))])
		}
		if o.bounced < 1000 || o.delivered < 1000 {
			t.Errorf("seed %d: the month proves nothing: %d refused, %d delivered", seed, o.bounced, o.delivered)
		}
	}
}
