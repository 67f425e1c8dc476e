package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/mail"
)

func limits(t testing.TB, texts ...string) []Limit {
	t.Helper()
	list := []Limit{}
	for _, s := range texts {
		l, err := ParseLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

// standard stands behind all rules.
var standard = Rule{Name: "the default policy", Senders: []string{"{login}"}, Recipients: []string{"*"},
	UnlistedSender: Refuse,
	OverLimit:      Defer, MaxHeld: 500}

func newPolicy(t testing.TB, rules ...Rule) *Policy {
	t.Helper()
	p, err := New(append(rules, standard))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFirstThatSetsWins(t *testing.T) {
	p := newPolicy(t,
		Rule{Logins: []string{"Scanner-*"}, Senders: []string{"scans@example.com"},
			Recipients: []string{"*@example.com"}},
		Rule{Groups: []string{"Staff"}, Limits: limits(t, "1000 messages/day"), OverLimit: Hold},
		Rule{Groups: []string{"staff"}, Limits: limits(t, "1 message/day"), OverLimit: Refuse, UnlistedSender: Rewrite},
		Rule{Listeners: []string{"appliance"}, Limits: []Limit{}, UnlistedSender: Rewrite},
		Rule{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24")}, OverLimit: Lock},
		Rule{Logins: []string{"both"}, Groups: []string{"staff"}, OverLimit: Refuse},
		Rule{Limits: limits(t, "60 messages/minute"), OverLimit: Defer},
	)
	for _, c := range []struct {
		name      string
		who       Subject
		limits    string
		over      string
		unlisted  string
		sender    string
		recipient bool // of example.net
	}{
		{"nobody in particular", Subject{Login: "anna@example.com"}, "60 messages/minute", Defer, Refuse,
			"anna@example.com", true},
		{"by login", Subject{Login: "scanner-2"}, "60 messages/minute", Defer, Refuse, "scans@example.com", false},
		{"by login, in capitals", Subject{Login: "SCANNER-2"}, "60 messages/minute", Defer, Refuse, "scans@example.com",
			false},
		{"by group, each setting from its first", Subject{Login: "anna@example.com", Groups: []string{"x", "STAFF"}},
			"1000 messages/day", Hold, Rewrite, "anna@example.com", true},
		{"by login and group", Subject{Login: "scanner-2", Groups: []string{"staff"}}, "1000 messages/day", Hold,
			Rewrite, "scans@example.com", false},
		{"by listener; no limits is a setting", Subject{Login: "anna@example.com", Listener: "appliance"}, "", Defer,
			Rewrite, "anna@example.com", true},
		{"by network", Subject{Login: "anna@example.com", Client: netip.MustParseAddr("::ffff:192.0.2.5")},
			"60 messages/minute", Lock, Refuse, "anna@example.com", true},
		{"all conditions or none", Subject{Login: "both"}, "60 messages/minute", Defer, Refuse, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := p.For(c.who)
			var texts []string
			for _, l := range e.Limits {
				texts = append(texts, l.String())
			}
			if got := strings.Join(texts, ","); got != c.limits {
				t.Errorf("limits = %q, want %q", got, c.limits)
			}
			if e.OverLimit != c.over || e.UnlistedSender != c.unlisted {
				t.Errorf("over_limit %q, unlisted_sender %q; want %q, %q", e.OverLimit, e.UnlistedSender, c.over,
					c.unlisted)
			}
			if got := e.FirstSender(); got != address(t, c.sender) {
				t.Errorf("first sender = %q, want %q", got, c.sender)
			}
			if got := e.RecipientAllowed(address(t, "x@example.net")); got != c.recipient {
				t.Errorf("recipient allowed = %v", got)
			}
		})
	}
}

func TestNoRules(t *testing.T) {
	e := newPolicy(t).For(Subject{Login: "anna@example.com"})
	if !e.MaySend(address(t, "anna@example.com")) || e.MaySend(address(t, "bob@example.com")) ||
		e.MaySend(mail.Address{}) {
		t.Error("without rules a login is itself, and only itself")
	}
	if !e.RecipientAllowed(address(t, "x@example.net")) || e.Limits != nil || e.OverLimit != Defer ||
		e.UnlistedSender != Refuse {
		t.Errorf("effective = %+v", e)
	}
}

func TestOwnSendersAreTheSenders(t *testing.T) {
	p := newPolicy(t, Rule{Senders: []string{"*@example.com"}})
	e := p.For(Subject{Login: "anna@example.com",
		Senders: []string{"*@example.org", "anna@example.net", "not a pattern"}})
	for s, want := range map[string]bool{"x@example.org": true, "anna@example.net": true, "anna@example.com": false} {
		if e.MaySend(address(t, s)) != want {
			t.Errorf("MaySend(%s) = %v", s, !want)
		}
	}
	if got := e.FirstSender().String(); got != "anna@example.net" {
		t.Errorf("first sender = %q", got)
	}
	broken := p.For(Subject{Login: "anna@example.com", Senders: []string{"not a pattern"}})
	if broken.MaySend(address(t, "anna@example.com")) {
		t.Error("senders that cannot be read fall back to more than was meant")
	}
}

func TestGroupsOfSenders(t *testing.T) {
	p := newPolicy(t, Rule{Senders: []string{"{login}", "@Board", "@nobody"}})
	e := p.For(Subject{Login: "assistant@example.com"})
	if e.MaySend(address(t, "ceo@example.com")) {
		t.Error("a group without members stands for somebody")
	}
	p.SetGroups([]Member{
		{Login: "CEO@example.com", Groups: []string{"board"}},
		{Login: "cfo", Groups: []string{"staff", "BOARD"},
			Senders: []string{"cfo@example.com", "{login}@example.org", "finance-*@example.com", "@staff"}},
		{Login: "clerk@example.com", Groups: []string{"staff"}},
		{Login: "device", Groups: []string{"board"}},
	})
	for s, want := range map[string]bool{
		"assistant@example.com": true, "ceo@example.com": true, "cfo@example.com": true, "cfo@example.org": true,
		"finance-1@example.com": true,
		"assistant@example.org": false, // {login} of a member is the member
		"clerk@example.com":     false, // no groups of groups
		"device@example.com":    false,
	} {
		if e.MaySend(address(t, s)) != want {
			t.Errorf("MaySend(%s) = %v", s, !want)
		}
	}
}

// What is in force for an open session knows the members of today, also when the policy is not that of today.
func TestGroupsOutliveTheirPolicy(t *testing.T) {
	before := newPolicy(t, Rule{Senders: []string{"@board"}})
	open := before.For(Subject{Login: "assistant"})
	p := newPolicy(t, Rule{Senders: []string{"{login}"}})
	p.Succeed(before)
	p.SetGroups([]Member{{Login: "ceo@example.com", Groups: []string{"board"}}})
	if !open.MaySend(address(t, "ceo@example.com")) {
		t.Error("a new member is not known to an open session")
	}
	p.SetGroups(nil)
	if open.MaySend(address(t, "ceo@example.com")) {
		t.Error("an open session may still be who is no member any more")
	}
}

func TestMaxHeld(t *testing.T) {
	p := newPolicy(t, Rule{Logins: []string{"bulk"}, MaxHeld: 7}, Rule{OverLimit: Hold},
		Rule{Logins: []string{"b*"}, MaxHeld: 9})
	for login, want := range map[string]int{"bulk": 7, "bert": 9, "anna": standard.MaxHeld} {
		if e := p.For(Subject{Login: login}); e.MaxHeld != want {
			t.Errorf("%s: %d, want %d", login, e.MaxHeld, want)
		}
	}
	if Check(Rule{MaxHeld: -1}) == nil {
		t.Error("a negative max_held is taken")
	}
}

func TestFirstSender(t *testing.T) {
	for _, c := range []struct {
		senders []string
		login   string
		want    string
	}{
		{[]string{"*@example.com", "@staff", "*@*.example.com", "a*@example.com", "Scans@Example.com"}, "x",
			"Scans@example.com"},
		{[]string{"{login}", "b@example.com"}, "x", "b@example.com"},
		{[]string{"{login}@example.com"}, "x", "x@example.com"},
		{[]string{"{login}@example.com"}, "two words", ""},
		{[]string{"*@example.com"}, "x", ""},
		{nil, "Anna@Example.com", "Anna@example.com"},
	} {
		e := newPolicy(t, Rule{Senders: c.senders}).For(Subject{Login: c.login})
		got := e.FirstSender()
		if got.String() != c.want {
			t.Errorf("%q of %q: first sender = %q, want %q", c.senders, c.login, got, c.want)
		}
		if !got.IsNull() && !e.MaySend(got) {
			t.Errorf("%q of %q: may not send as its first sender", c.senders, c.login)
		}
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	minute := limits(t, "60 messages/minute")[0]
	for name, c := range map[string]struct {
		rule Rule
		want string
	}{
		"empty senders":         {Rule{Senders: []string{}}, "policy 2: senders: the list is empty"},
		"bad sender":            {Rule{Senders: []string{"x"}}, `policy 2: senders: "x"`},
		"empty recipients":      {Rule{Recipients: []string{}}, "policy 2: recipients: the list is empty"},
		"bad recipient":         {Rule{Recipients: []string{"x"}}, `policy 2: recipients: "x"`},
		"empty login":           {Rule{Logins: []string{" "}}, "policy 2: logins"},
		"excluded login":        {Rule{Logins: []string{"!anna"}}, "policy 2: logins"},
		"bad unlisted_sender":   {Rule{UnlistedSender: "drop"}, `policy 2: unlisted_sender: "drop"`},
		"bad over_limit":        {Rule{OverLimit: "drop"}, `policy 2: over_limit: "drop"`},
		"limit twice":           {Rule{Limits: []Limit{minute, minute}}, "is listed twice"},
		"limit of nothing":      {Rule{Limits: []Limit{{}}}, "is not a limit"},
		"network that is none":  {Rule{Networks: []netip.Prefix{{}}}, "policy 2: networks"},
		"a name is used if set": {Rule{Name: "relay.toml:12", OverLimit: "drop"}, "relay.toml:12: over_limit"},
		"denied and still named": {Rule{Recipients: []string{"a@example.com", "!*@example.com"}},
			"can never be reached"},
	} {
		_, err := New([]Rule{{}, c.rule})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestTheLastRuleIsComplete(t *testing.T) {
	limited, silent := standard, standard
	limited.Logins, silent.OverLimit = []string{"a*"}, ""
	for _, rules := range [][]Rule{nil, {standard, {}}, {limited}, {silent}} {
		if _, err := New(rules); err == nil {
			t.Errorf("%+v were taken", rules)
		}
	}
}

func TestMatcher(t *testing.T) {
	m, err := NewMatcher(Match{Logins: []string{"app-*"}, Senders: []string{"*@example.com", "<>"},
		Recipients: []string{"*@example.net", "!boss@example.net"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		login, from, to string
		want            bool
	}{
		{"app-1", "x@example.com", "y@example.net", true},
		{"APP-1", "X@Example.com", "y@example.net", true},
		{"app-1", "", "y@example.net", true},
		{"bob", "x@example.com", "y@example.net", false},
		{"app-1", "x@example.org", "y@example.net", false},
		{"app-1", "x@example.com", "y@example.org", false},
		{"app-1", "x@example.com", "boss@example.net", false},
		{"app-1", "x@example.com", "", false},
	} {
		if got := m.Matches(Facts{Login: c.login, Sender: address(t, c.from),
			Recipient: address(t, c.to)}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	everything, _ := NewMatcher(Match{})
	if !everything.Matches(Facts{}) {
		t.Error("a match without conditions does not match everything")
	}
	star, _ := NewMatcher(Match{Senders: []string{"*"}})
	if !star.Matches(Facts{Sender: address(t, "x@example.com")}) || star.Matches(Facts{}) {
		t.Error(`senders "*" is every address, and not the null one`)
	}
	denials, _ := NewMatcher(Match{Recipients: []string{"!*@example.net"}})
	if !denials.Matches(Facts{Recipient: address(t, "x@example.com")}) || denials.Matches(Facts{}) {
		t.Error("a list of denials matches the rest, and not nobody")
	}
	for _, bad := range []Match{{Senders: []string{"@staff"}}, {Senders: []string{"x"}}, {Recipients: []string{"x"}},
		{Logins: []string{""}}} {
		if _, err := NewMatcher(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestReplies(t *testing.T) {
	now := time.Unix(1e9, 0)
	minute := limits(t, "60 messages/minute")[0]
	bytes := limits(t, "2MB/day")[0]
	p := newPolicy(t,
		Rule{Logins: []string{"scanner"}, Senders: []string{"scans@example.com", "*@example.org"},
			Recipients: []string{"*@example.com", "!boss@example.com"}, Limits: []Limit{minute}},
		Rule{Logins: []string{"many"},
			Senders: []string{"1@a.example", "2@a.example", "3@a.example", "4@a.example", "5@a.example", "6@a.example",
				"7@a.example"}},
		Rule{Limits: []Limit{minute}},
	)
	scanner, login := p.For(Subject{Login: "scanner"}), p.For(Subject{Login: "anna"})
	own, person := p.For(Subject{Login: "bob", Senders: []string{"bob@example.com"}}),
		p.For(Subject{Login: "anna@example.com"})
	many := p.For(Subject{Login: "many"})
	with := func(over string) *Effective { e := login; e.OverLimit = over; return &e }
	in := func(d time.Duration) Verdict { return Verdict{Limit: minute, Need: 1, Retry: now.Add(d)} }
	x, boss := address(t, "x@example.net"), address(t, "boss@example.com")
	for _, c := range []struct {
		got  mail.Reply
		want string
	}{
		{scanner.SenderRefusal(x), `550 5.7.1 scanner may not send as <x@example.net>; it may use scans@example.com, ` +
			`*@example.org (policy 1)`},
		{own.SenderRefusal(x), `550 5.7.1 bob may not send as <x@example.net>; it may use bob@example.com (the ` +
			`login's own senders)`},
		{person.SenderRefusal(x), `550 5.7.1 anna@example.com may not send as <x@example.net>; it may use ` +
			`anna@example.com (the default policy)`},
		{login.SenderRefusal(x), `550 5.7.1 anna may not send as <x@example.net>; no sender is set for it in the ` +
			`default policy, and the login is not an address itself: the administrator has to name one`},
		{many.SenderRefusal(x), `550 5.7.1 many may not send as <x@example.net>; it may use 1@a.example, ` +
			`2@a.example, 3@a.example, 4@a.example, 5@a.example, 2 more (policy 2)`},
		{scanner.AuthorRefusal(x), `550 5.7.1 the header says that the message is from <x@example.net>, and scanner ` +
			`may not send as that; it may use scans@example.com, *@example.org (policy 1)`},
		{scanner.RecipientRefusal(x), `550 5.7.1 scanner may not write to <x@example.net>: it is not among the ` +
			`recipients of policy 1; the administrator can add it`},
		{scanner.RecipientRefusal(boss), `550 5.7.1 scanner may not write to <boss@example.com>: policy 1 has ` +
			`"!boss@example.com"; the administrator can allow it`},
		{login.LimitRefusal(in(39500*time.Millisecond), now),
			`452 4.7.1 limit "60 messages/minute" of policy 3 reached; try again in 40 s`},
		{login.LimitRefusal(in(0), now), `452 4.7.1 limit "60 messages/minute" of policy 3 reached; try again in 1 s`},
		{login.LimitRefusal(in(3*time.Minute), now),
			`452 4.7.1 limit "60 messages/minute" of policy 3 reached; try again in 3 min`},
		{login.LimitRefusal(in(5*time.Hour+time.Second), now),
			`452 4.7.1 limit "60 messages/minute" of policy 3 reached; try again in 6 h`},
		{login.LimitRefusal(in(60*time.Hour), now),
			`452 4.7.1 limit "60 messages/minute" of policy 3 reached; try again in 3 days`},
		{with(Hold).LimitRefusal(in(time.Minute), now),
			`452 4.7.1 limit "60 messages/minute" of policy 3 reached; try again in 60 s`},
		{with(Refuse).LimitRefusal(in(time.Minute), now),
			`550 5.7.1 limit "60 messages/minute" of policy 3 reached; it is free again in 60 s`},
		{with(Lock).LimitRefusal(in(time.Minute), now), `550 5.7.1 limit "60 messages/minute" of policy 3 reached; ` +
			`the login is locked until the administrator unlocks it`},
		{login.LimitRefusal(Verdict{Never: true, Limit: bytes, Need: 2500000}, now),
			`550 5.7.1 the message counts 2500KB and can never pass the limit "2MB/day" of policy 3; send it in ` +
				`smaller parts`},
	} {
		if c.got.String() != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

func TestHostileLoginsAreShownPrintable(t *testing.T) {
	e := newPolicy(t).For(Subject{Login: "a\r\n250 ok\x1b" + strings.Repeat("x", 500)})
	r := e.SenderRefusal(address(t, "x@example.net")).Text
	if strings.ContainsAny(r, "\r\n\x1b") || len(r) > 400 {
		t.Errorf("reply = %q", r)
	}
}

func benchmarkPolicy(b *testing.B) *Policy {
	var rules []Rule
	for i := range 20 {
		rules = append(rules, Rule{Logins: []string{"scanner-" + string(rune('a'+i)) + "*", "printer-*"},
			Groups: []string{"devices"}, Senders: []string{"scans@example.com"}})
	}
	rules = append(rules, Rule{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, OverLimit: Hold},
		Rule{Senders: []string{"{login}", "*@example.com"}, Recipients: []string{"*", "!*@example.net"},
			Limits: limits(b, "60 messages/minute", "1000 messages/day")})
	return newPolicy(b, rules...)
}

func BenchmarkFor(b *testing.B) {
	p := benchmarkPolicy(b)
	s := Subject{Login: "anna@example.com", Groups: []string{"staff", "board"},
		Client: netip.MustParseAddr("192.0.2.1"), Listener: "submission"}
	b.ReportAllocs()
	for b.Loop() {
		p.For(s)
	}
}

func BenchmarkForOwnSenders(b *testing.B) {
	p := benchmarkPolicy(b)
	s := Subject{Login: "anna@example.com", Senders: []string{"anna@example.com", "*@example.org", "{login}"},
		Client: netip.MustParseAddr("192.0.2.1")}
	b.ReportAllocs()
	for b.Loop() {
		p.For(s)
	}
}

func BenchmarkJudgeMessage(b *testing.B) {
	e := benchmarkPolicy(b).For(Subject{Login: "anna@example.com"})
	from, to := address(b, "anna@example.com"), address(b, "someone@example.org")
	b.ReportAllocs()
	for b.Loop() {
		if !e.MaySend(from) || !e.RecipientAllowed(to) {
			b.Fatal("refused")
		}
	}
}
