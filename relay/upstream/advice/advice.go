// Package advice says what an administrator must do about a provider's reply: the cause in plain words, the setting to
// click or the command to run, and the source. It is data, advice.toml.
//
// Failure semantics: advice is for people and decides nothing; reply rules decide what becomes of a message. The file
// is embedded; if it cannot be parsed, its first use panics, and so do the tests.
package advice

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/pelletier/go-toml/v2"

	"postern/mail"
	"postern/relay/upstream/replies"
)

//go:embed advice.toml
var file []byte

// Advice is what to do about one kind of reply.
type Advice struct {
	Name      string   `toml:"name" json:"name"`
	Providers []string `toml:"providers" json:"-"` // profiles that say so; empty: whoever does
	Stages    []string `toml:"stages" json:"-"`    // of mail.Stage; empty: any
	Code      string   `toml:"code" json:"-"`      // these three as in replies.Rule
	Enhanced  string   `toml:"enhanced" json:"-"`
	Text      string   `toml:"text" json:"-"`
	// Rules are generic reply rules that decide about the reply; with them nothing else need be said of it.
	Rules   []string `toml:"rules" json:"-"`
	Cause   string   `toml:"cause" json:"cause"`
	Fix     []string `toml:"fix" json:"fix"` // step by step
	Source  string   `toml:"source" json:"source"`
	Unsure  bool     `toml:"unsure" json:"unsure,omitempty"` // the steps are not confirmed by the provider's own text
	Example string   `toml:"example" json:"-"`               // a reply that this is for

	matcher *replies.Matcher
}

// AnyStage stands for a stage that is not known: that of the login is the likeliest.
const AnyStage mail.Stage = ""

var likeliest = []mail.Stage{mail.StageAuth, mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot}

// For returns the advice about a provider's reply at a stage, nil where there is none. provider is the name of a
// profile. The alert loop asks for each paused identity every few seconds, so answers are remembered.
func For(provider string, stage mail.Stage, r mail.Reply) *Advice {
	if r.Code < 400 {
		return nil
	}
	q := question{provider, stage, r}
	a, ok := answers().Get(q)
	if !ok {
		a = q.answer()
		q.reply.Text = strings.Clone(r.Text) // which may be a part of a longer one
		answers().Add(q, a)
	}
	return a
}

// question is what For is asked.
type question struct {
	provider string
	stage    mail.Stage
	reply    mail.Reply
}

// maxAnswers bounds what is remembered. A reply has at most 2 KiB, most have 200 octets.
const maxAnswers = 4096

var answers = sync.OnceValue(func() *lru.Cache[question, *Advice] {
	cache, _ := lru.New[question, *Advice](maxAnswers) // fails for a size below 1 only
	return cache
})

func (q question) answer() *Advice {
	stages := []mail.Stage{q.stage}
	if q.stage == AnyStage {
		stages = likeliest
	}
	reply := replies.NewSample(q.reply)
	for _, stage := range stages {
		if a := at(q.provider, stage, reply); a != nil {
			return a
		}
	}
	return nil
}

// at returns the first advice about a reply at one stage.
func at(provider string, stage mail.Stage, reply *replies.Sample) *Advice {
	decided := ""
	for _, a := range load() {
		if len(a.Rules) > 0 && decided == "" {
			decided = generic().Name(stage, reply)
		}
		if a.matches(provider, decided) && a.matcher.Matches(stage, reply) {
			return a
		}
	}
	return nil
}

// generic are the rules that hold for every provider.
var generic = sync.OnceValue(func() *replies.Rules {
	rules, _ := replies.Compile(nil) // nothing that could be wrong
	return rules
})

func (a *Advice) matches(provider, decided string) bool {
	return (len(a.Providers) == 0 || slices.Contains(a.Providers, provider)) &&
		(len(a.Rules) == 0 || slices.Contains(a.Rules, decided))
}

// rule matches what the advice is for; its class is of no importance.
func (a *Advice) rule() replies.Rule {
	rule := replies.Rule{Name: "advice " + a.Name, Code: a.Code, Enhanced: a.Enhanced, Text: a.Text,
		Class: mail.Deferral}
	for _, s := range a.Stages {
		rule.Stages = append(rule.Stages, mail.Stage(s))
	}
	return rule
}

// Placeholders that Fix and Cause may have.
const (
	identityPlace = "{identity}"
	senderPlace   = "{sender}"
)

// Filled returns the advice with the mailbox that was logged in as and the sender in place; what is empty stays a word.
func (a *Advice) Filled(identity, sender string) *Advice {
	identity = cmp.Or(identity, "MAILBOX")
	sender = cmp.Or(sender, "SENDER")
	fill := strings.NewReplacer(identityPlace, mail.Printable(identity), senderPlace, mail.Printable(sender))
	filled := *a
	filled.Cause = fill.Replace(a.Cause)
	filled.Fix = nil
	for _, f := range a.Fix {
		filled.Fix = append(filled.Fix, fill.Replace(f))
	}
	return &filled
}

var load = sync.OnceValue(func() []*Advice {
	all, err := parse(file)
	if err != nil {
		panic("advice: " + err.Error())
	}
	return all
})

func parse(data []byte) ([]*Advice, error) {
	var table struct {
		Advice []*Advice `toml:"advice"`
	}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&table); err != nil {
		return nil, err
	}
	for _, a := range table.Advice {
		var err error
		if a.matcher, err = replies.NewMatcher(a.rule()); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
	}
	return table.Advice, nil
}
