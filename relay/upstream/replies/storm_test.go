package replies_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"postern/mail"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/replies"
	"postern/relay/upstream/storm"
)

// row is a line of ../testdata/replies.tsv.
type row struct {
	provider, class string
	stage           mail.Stage
	text            string
	reply           mail.Reply
}

// blocks are the replies of the list that concern an account or a sender and would bounce if no rule knew them.
func blocks(t *testing.T) (rows []row) {
	t.Helper()
	file, err := os.ReadFile("../testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) < 5 || f[0] == "provider" || !strings.HasPrefix(f[4], "5") {
			continue
		}
		switch f[2] {
		case "account", "pressure", "sender":
		default:
			continue
		}
		switch stage := mail.Stage(f[1]); stage {
		case mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot:
			rows = append(rows, row{provider: f[0], class: f[2], stage: stage,
				text: strings.ReplaceAll(f[4], `\r\n`, "\r\n")})
		}
	}
	for i := range rows {
		if rows[i].reply, err = replies.Parse(rows[i].text); err != nil {
			t.Fatalf("%q: %v", rows[i].text, err)
		}
	}
	if len(rows) < 30 {
		t.Fatalf("only %d replies in the list", len(rows))
	}
	return rows
}

var (
	numbers   = regexp.MustCompile(`\d+`)
	addresses = regexp.MustCompile(`[\w.]+@[\w.]+\w`)
)

// another is the reply as the next message gets it: other numbers, ids and addresses.
func (r row) another(rng *rand.Rand, from string) mail.Reply {
	text := numbers.ReplaceAllStringFunc(r.reply.Text, func(n string) string {
		return fmt.Sprintf("%0*d", len(n), rng.IntN(1000))
	})
	r.reply.Text = addresses.ReplaceAllString(text, from)
	return r.reply
}

// street is a stream of mail to one upstream, in the order of sending.
type street struct {
	name     string
	bySender bool
	next     func(rng *rand.Rand, n int) (login, domain string)
}

func anybody(logins int) func(*rand.Rand, int) (string, string) {
	return func(rng *rand.Rand, _ int) (string, string) {
		return fmt.Sprintf("user%d", rng.IntN(logins)), fmt.Sprintf("customer%d.example", rng.IntN(50))
	}
}

var streets = []street{
	{name: "a large office", next: anybody(200)},
	{name: "an office", next: anybody(10)},
	{name: "two people", next: anybody(2)},
	{name: "one program that writes to many", next: anybody(1)},
	{name: "many that write to one domain", next: func(rng *rand.Rand, _ int) (string, string) {
		return fmt.Sprintf("user%d", rng.IntN(20)), "customer.example"
	}},
	{name: "a newsletter while others rest", next: func(rng *rand.Rand, n int) (string, string) {
		if n < 100 {
			return anybody(10)(rng, n)
		}
		return "newsletter", fmt.Sprintf("reader%d.example", rng.IntN(500))
	}},
	{name: "an office of mailboxes", bySender: true, next: anybody(100)},
}

// An account that is refused in words that no rule knows costs at most five bounces, whoever sends; the rest is kept.
// When the block is over the mail flows.
func TestUnknownBlocksCostFiveBouncesAtMost(t *testing.T) {
	t.Parallel()
	const most = 5
	for _, r := range blocks(t) {
		var own []replies.Rule
		if p, ok := profile.Get(r.provider); ok {
			own = p.UpstreamRules()
		}
		rule, _, err := replies.WithoutKnowledge(own, r.stage, r.reply)
		if err != nil || !rule.Class.Permanent() {
			t.Errorf("%s at %s: without its rules it is %s by %s (%v)", r.text, r.stage, rule.Class, rule.Name, err)
			continue
		}
		for i, s := range streets {
			rng := rand.New(rand.NewPCG(uint64(i), 11))
			w, now := storm.New(s.bySender), time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
			bounced, kept := 0, 0
			for n := range 600 {
				now = now.Add(time.Duration(rng.IntN(120)) * time.Second)
				login, domain := s.next(rng, n)
				at := storm.Attempt{Login: login, Domain: domain, Identity: "relay"}
				if s.bySender {
					at.Identity = login + "@office.example"
				}
				if n < 100 { // a good morning
					w.Delivered(now, at)
					continue
				}
				v, _ := w.Refused(now, storm.Refusal{Attempt: at, Stage: r.stage,
					Reply: r.another(rng, login+"@office.example"), Personal: []string{login, domain}})
				if v == storm.Believe {
					bounced++
				} else {
					kept++
				}
			}
			if bounced > most || bounced+kept != 500 {
				t.Errorf("%s at %s, %s: %d bounces, %d kept", r.text, r.stage, s.name, bounced, kept)
			}
		}
	}
}

// What a storm proposes is a rule that its reply meets, and nobody needs to mend.
func TestProposedRulesAreGood(t *testing.T) {
	t.Parallel()
	for _, r := range blocks(t) {
		block := storm.Storm{Reply: r.reply, Stage: r.stage}.Rule()
		rule, err := parseRule(block)
		if err != nil {
			t.Errorf("%s\n%v", block, err)
			continue
		}
		rules, err := replies.Compile([]replies.Rule{rule})
		if err != nil {
			t.Errorf("%s\n%v", block, err)
			continue
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 3 {
			got, _ := rules.Classify(r.stage, r.another(rng, "somebody@office.example"), time.Now())
			if got.Name != rule.Name || got.Class != mail.AccountFault {
				t.Errorf("%s\nreads %s as %s by %s", block, r.text, got.Class, got.Name)
			}
		}
		example, err := replies.Parse(rule.Example)
		if err != nil || !r.reply.IsZero() && example.Code != r.reply.Code {
			t.Errorf("%s\nthe example is no reply: %v", block, err)
		}
	}
}

func parseRule(block string) (replies.Rule, error) {
	var c struct {
		Upstream []struct {
			Rule []profile.Rule `toml:"rule"`
		} `toml:"upstream"`
	}
	d := toml.NewDecoder(strings.NewReader("[[upstream]]\n" + block)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return replies.Rule{}, err
	}
	if len(c.Upstream) != 1 || len(c.Upstream[0].Rule) != 1 {
		return replies.Rule{}, fmt.Errorf("%d blocks", len(c.Upstream))
	}
	rule := &c.Upstream[0].Rule[0]
	return rule.Upstream(), rule.Check()
}
