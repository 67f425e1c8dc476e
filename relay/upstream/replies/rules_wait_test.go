package replies

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) // a Sunday

// Waits stand in replies as people write them.
func TestWaitsAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Please try again in 300 seconds":                     5 * time.Minute,
		"Please retry after 300 sec.":                         5 * time.Minute,
		"Relay quota will reset in 21.99 hours.":              79164 * time.Second,
		"Das Limit ist erreicht, erneut in 1,5 Stunden":       90 * time.Minute,
		"Try again in 15m":                                    15 * time.Minute,
		"Greylisted for 5 minutes":                            5 * time.Minute,
		"Greylisting in action, please come back in 00:04:57": 297 * time.Second,
		"come back in 4:30":                                   270 * time.Second,
		"Greylisted, please try again in 4 min 32 s":          272 * time.Second,
		"try again in 1 hour and 30 minutes":                  90 * time.Minute,
		"Account will be enabled in 341 seconds":              341 * time.Second,
		"Please wait 10 minutes before sending":               10 * time.Minute,
		"wait an hour":                                        time.Hour,
		"in 2 days, please retry":                             48 * time.Hour,
		"Your address is blocked for the next 2 hours":        2 * time.Hour,
		"Retry-After: 120":                                    2 * time.Minute,
		"Please try after a few minutes.":                     5 * time.Minute,
		"you sent 500 messages in 24 hours":                   0,
		"limit of 100 messages per hour":                      0,
		"blocked: more than 100 mails in 1 hour":              0,
		"try again in 2 moons":                                0,
		"try again later":                                     0,
		"try again after Sun, 22 Nov 2026 12:20:44 UTC": 20*time.Minute +
			44*time.Second,
		"try again after Sun, 22 Nov 2026 14:20:44 +0200": 20*time.Minute +
			44*time.Second,
		"request limit exceeded, try again after 2026-11-22T13:00:00Z":                  time.Hour,
		"try again after 2026-11-22 13:00:00.123456 +0000 UTC":                          time.Hour,
		"try again after 2026-11-23":                                                    12 * time.Hour,
		"blocked until Nov 22, 2026 1:30 PM":                                            90 * time.Minute,
		"limit resets at 13:00 UTC":                                                     time.Hour,
		"limit resets at 11:00 UTC":                                                     23 * time.Hour,
		"suspended until 11/22/2026 1:00:00 PM":                                         time.Hour,
		"gesperrt, wait until 22.11.2026 13:00":                                         time.Hour,
		"retry after Sun Nov 22 12:30:00 2026":                                          30 * time.Minute,
		"retry after Sun Nov 22 12:30:00 UTC 2026":                                      30 * time.Minute,
		"try again after 1795350600":                                                    30 * time.Minute,
		"try again after Mon, 25 Aug 2025 07:00:31 UTC":                                 0, // over
		"try again after Fri, 99 Foo 2026 12:20:44 UTC":                                 0,
		"The message was sent on Sun, 22 Nov 2026 18:00:00 UTC and could not be routed": 0,
	} {
		if got := readWait(text, noon).Round(time.Second); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Windows of quotas stand in replies as people write them.
func TestWindowsAreRead(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"exceeded the max emails per hour (100/100 (100%)) allowed": time.Hour,
		"Hourly limit reached":                                time.Hour,
		"rate overlimit = 83.6 / 1h":                          time.Hour,
		"Sender rate overlimit - 290.8 / 24h":                 day,
		"domains are limited to 100 messages / hour":          time.Hour,
		"exceeded hour limit":                                 time.Hour,
		"limit of 400 rcpts per 24 hours":                     day,
		"has exceeded its 24-hour sending limit":              day,
		"Daily user sending limit exceeded":                   day,
		"200 messages per 3600 seconds":                       time.Hour,
		"more than 500 mails within 10 minutes":               10 * time.Minute,
		"You may send 30 messages a minute":                   time.Minute,
		"100 mails today":                                     day,
		"Weekly quota":                                        7 * day,
		"monthly sending quota":                               30 * day,
		"zu viele E-Mails pro Stunde":                         time.Hour,
		"Limite par jour atteinte":                            day,
		"2 requests per second":                               0,
		"quota exceeded, try again in 5 hours":                0,
		"Sending too fast":                                    0,
		"quota of " + strings.Repeat("9", 300) + " per 1 day": day,
	} {
		if got := readWindow(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// What the reply says of times arrives where it is acted on, within bounds.
func TestTimesOfARule(t *testing.T) {
	rules, err := Compile([]Rule{{Name: "own", Code: "452", Class: mail.Deferral, RetryAfter: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reply       mail.Reply
		rule        string
		wait, quota time.Duration
	}{
		{mail.R(550, "", "User relay@example.com has exceeded its 24-hour sending limit. Relay quota will reset in "+
			"21.99 hours."),
			"over-quota", 79164 * time.Second, 24 * time.Hour},
		{mail.R(550, "", "exceeded the max emails per hour"), "over-quota", 5 * time.Minute, time.Hour},
		{mail.R(550, "", "daily limit exceeded"), "over-quota", time.Hour, 24 * time.Hour},
		{mail.R(550, "", "monthly limit exceeded, resets in 20 days"), "over-quota", maxWait, 30 * 24 * time.Hour},
		{mail.R(550, "", "Your messaging limits are exceeded"), "over-quota", 15 * time.Minute, 0},
		{mail.R(452, "", "wait 5 minutes"), "own", time.Hour, 0},
		{mail.R(452, "", "wait 5 hours"), "own", 5 * time.Hour, 0},
		{mail.R(550, "5.1.1", "User unknown, try again in 5 hours"), "unknown-recipient", 0, 0},
	} {
		r, _ := rules.Classify(mail.StageRcpt, c.reply, noon)
		if r.Name != c.rule || r.RetryAfter.Round(time.Second) != c.wait || r.Quota != c.quota {
			t.Errorf("%s: %s, wait %v, quota %v; want %s, %v, %v", c.reply, r.Name, r.RetryAfter, r.Quota, c.rule,
				c.wait, c.quota)
		}
	}
}

// No text of a reply makes classifying panic, leave its bounds, or break the promises of the classes.
func FuzzClassify(f *testing.F) {
	for i, r := range genericRules {
		f.Add(r.Example, uint8(i))
	}
	f.Add("550 "+strings.Repeat("per your quota ip block ", 20), uint8(7))
	f.Add("450 try again after 99/99/9999 99:99:99 PM +9999", uint8(5))
	f.Add("450 wait 9999999.999999 days and 9999 hours", uint8(5))
	rules, err := Compile(nil)
	if err != nil {
		f.Fatal(err)
	}
	stages := slices.Concat(beforeMail, fromMail)
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		reply, err := Parse(text)
		if err != nil || !reply.Temporary() && !reply.Permanent() {
			return
		}
		stage := stages[int(n)%len(stages)]
		r, number := rules.Classify(stage, reply, noon)
		if number != -1 || r.RetryAfter < 0 || r.RetryAfter > maxWait || r.Quota < 0 || r.Quota > upstream.MaxQuota {
			t.Errorf("%s at %s: %d, %v, %v", reply, stage, number, r.RetryAfter, r.Quota)
		}
		if r.Class.Permanent() && (reply.Temporary() || slices.Contains(beforeMail, stage)) {
			t.Errorf("%s at %s is %s by %s", reply, stage, r.Class, r.Name)
		}
	})
}

// What is searched is bounded, and free of what strangers choose.
func TestSamples(t *testing.T) {
	long := NewSample(mail.R(550, "", "%s", strings.Repeat("quota ", 3000)))
	if len(long.raw) > MaxText+3 || len(long.flat) > len(long.raw) || len(long.words) > len(long.flat) {
		t.Errorf("%d, %d, %d octets", len(long.raw), len(long.flat), len(long.words))
	}
	for text, want := range map[string]string{
		"<over-quota@blocked.example>: User\nunknown":               "<@>: User unknown",
		"Relay too-fast@spam.example, see https://rbl.example/spam": "Relay @, see ",
		"host mx.example.com[192.0.2.7] said no. Really.":           "host mx_example_com[192_0_2_7] said no. Really.",
		`<"too fast"@example.com> unknown`:                          `<@> unknown`,
	} {
		if got := NewSample(mail.R(550, "", "%s", text)).words; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A hint never hides a match, and nearly all rules have one.
func TestHintsHideNothing(t *testing.T) {
	for pattern, want := range map[string]string{
		`too (?:fast|many)`:      "too fast,too many",
		`\bip\b[^.;]*block`:      "block",
		`(?:a|bc)?relay\w*`:      "arelay,bcrelay,relay",
		`over[ -]?quota`:         "over quota,over-quota,overquota",
		`a+b*`:                   "",
		`[a-z]+ denied|\d{3} go`: " denied, go",
		`(?:x|[^y]) denied`:      " denied",
	} {
		if got := strings.Join(hintsOf(pattern), ","); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
	without := 0
	for _, m := range compiledGeneric() {
		if m.text == nil {
			continue
		}
		if m.hints == nil {
			without++
		}
		for _, r := range genericRules {
			reply, err := Parse(r.Example)
			if err != nil {
				t.Fatal(err)
			}
			if s := NewSample(reply); m.text.MatchString(s.words) && !hinted(m.hints, s.lower) {
				t.Errorf("%s: the hints %q hide %q", m.Name, m.hints, s.words)
			}
		}
	}
	if without > 20 {
		t.Errorf("%d rules have no hints", without)
	}
}

func BenchmarkClassify(b *testing.B) {
	rules, _ := Compile(nil)
	for name, text := range map[string]string{
		"known": "User unknown in virtual mailbox table",
		"none":  strings.Repeat("nothing that anybody knows, ", 5),
		"long":  strings.Repeat("per your quota ip block sender ", 600),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				rules.Classify(mail.StageDot, mail.R(550, "", "%s", text), noon)
			}
		})
	}
}

// What a reply means is looked up in rules that are compiled once.
func TestClassifyCompilesNothing(t *testing.T) {
	const most = 200 // one pattern compiled is thousands
	rules, _ := Compile(nil)
	reply := mail.R(550, "", "%s", strings.Repeat("nothing that anybody knows, ", 5))
	if allocs := testing.AllocsPerRun(3, func() { rules.Classify(mail.StageDot, reply, noon) }); allocs > most {
		t.Errorf("%.0f allocations", allocs)
	}
	if allocs := testing.AllocsPerRun(3, func() { _, _ = Compile(nil) }); allocs > most {
		t.Errorf("%.0f allocations to use the generic rules again", allocs)
	}
}
