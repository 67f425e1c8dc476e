// Package trial tries an upstream as a delivery would, for all senders that are configured, and says what became of it
// and what to do: `postern upstream test` and the doctor are its readers.
//
// Failure semantics: nothing is sent, no recipient is named, and what is refused here changes nothing for mail that
// waits. A fault of the upstream is a step of the Report; an error is ours: the store or a file cannot be read.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/outbound"
	relaystore "postern/relay/store"
	"postern/relay/upstream"
	"postern/relay/upstream/advice"
	"postern/relay/upstream/oauth"
	"postern/relay/upstream/profile"
)

// Step is a step with what to do about it.
type Step struct {
	upstream.Step
	Advice *advice.Advice `json:"advice,omitempty"`
}

// Report is what a test came to, as `upstream test --json` prints it.
type Report struct {
	Upstream  string   `json:"upstream"`
	OK        bool     `json:"ok"`
	Steps     []Step   `json:"steps"`
	NotTested []string `json:"not_tested,omitempty"` // configured senders that are patterns, or one too many
	Unproven  string   `json:"unproven,omitempty"`   // what a test without a message cannot find out
	Why       string   `json:"-"`                    // NotTested

	provider string
	senders  *Senders
}

// NewReport is the report of a test that has not begun.
func NewReport(block config.Upstream, senders *Senders) *Report {
	r := &Report{Upstream: block.Name, OK: true, Steps: []Step{}, NotTested: senders.Untested,
		Unproven: unproven(block, senders), provider: providerOf(block), senders: senders}
	r.Why = "They are patterns or too many; name some with --sender ADDRESS."
	if block.ByGraph() && !block.SendsAsSender() {
		r.Why = "Graph checks the sender only with a message."
	}
	return r
}

// Run tries the upstream and adds each step to the report. watch is told of each as it happens; its Done adds the step
// where it is set, since it may have words to add. source is what Tokens made.
func (r *Report) Run(ctx context.Context, hostname string, block config.Upstream, source *oauth.Source,
	watch upstream.Trial) error {
	watch.Senders = r.senders.asked()
	if watch.Done == nil {
		watch.Done = func(s upstream.Step) { r.Add(s) }
	}
	_, err := outbound.TestUpstream(ctx, hostname, block, source, watch)
	return err
}

// Add takes a step that was made.
func (r *Report) Add(s upstream.Step) *Step {
	step := Step{Step: s}
	step.excuse(r.senders)
	if !step.OK {
		r.OK = false
		if !s.Ours {
			if found := advice.For(r.provider, stageOf(s.Name), s.Reply); found != nil {
				step.Advice = found.Filled(s.Identity, s.Sender)
			}
		}
	}
	r.Steps = append(r.Steps, step)
	return &r.Steps[len(r.Steps)-1]
}

// excuse makes a refused null reverse-path no failure of the test where reports may have an address instead.
func (s *Step) excuse(senders *Senders) {
	null := mail.Address{}
	if s.OK || s.Sender != null.Path() || s.Ours || len(senders.Reports) < 2 {
		return
	}
	s.OK, s.Cause = true, ""
	s.Seen = fmt.Sprintf("%s: %s\nReports have the reverse-path %s instead.", null.Path(), s.Reply,
		senders.Reports[1].Path())
}

// unproven says what providers check only when they have the whole message.
func unproven(block config.Upstream, senders *Senders) string {
	switch {
	case len(senders.Addresses) == 0 || block.SenderRule == "" || block.SenderRule == profile.SenderAny:
		return ""
	case block.SendsAsSender():
		return "Recipients and From are checked when a message comes; what is refused then is in postern trace."
	}
	return "Many providers check the sender only when they have the message, so a permission that is missing may " +
		"still show then: the mail is kept, and postern trace has the reply."
}

// providerOf is the profile of an upstream, by its host where none is named.
func providerOf(block config.Upstream) string {
	if block.Provider != profile.Generic && block.Provider != "" {
		return block.Provider
	}
	if name := profile.ForHost(block.Host); name != "" {
		return name
	}
	return profile.Generic
}

func stageOf(step string) mail.Stage {
	switch step {
	case "resolve":
		return mail.StageResolve
	case "connect":
		return mail.StageConnect
	case "tls", "starttls":
		return mail.StageTLS
	case "greeting":
		return mail.StageGreeting
	case "ehlo":
		return mail.StageEHLO
	case "mail", "large-mail":
		return mail.StageMail
	}
	return mail.StageAuth
}

// Tokens opens the store for the consents of an upstream and makes its source of access tokens, nil for one that has
// none. A store that is not there yet has no consents, and is not made. done closes both.
func Tokens(ctx context.Context, c *config.Config, block config.Upstream) (source *oauth.Source, done func(),
	err error) {
	if block.OAuth == nil {
		return nil, func() {}, nil
	}
	silent := slog.New(slog.DiscardHandler)
	s, err := openStore(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if s == nil {
		if source, err = outbound.NewTokensAlone(block, c.SendsForOthers(&block), silent); err != nil {
			return nil, nil, err
		}
		return source, source.Close, nil
	}
	source, err = outbound.NewTokens(c, block, s, silent)
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return source, func() { source.Close(); s.Close() }, nil
}

// openStore opens the store beside the daemon; nil: there is none yet.
func openStore(ctx context.Context, c *config.Config) (*relaystore.Store, error) {
	return relaystore.OpenThere(ctx, relaystore.Of(c))
}

// Whole tries an upstream for all senders that are configured, each step of a way to a login for a third of total.
func Whole(ctx context.Context, c *config.Config, block config.Upstream, total time.Duration) (*Report, error) {
	senders, err := SendersOf(ctx, c, block, nil)
	if err != nil {
		return nil, err
	}
	source, done, err := Tokens(ctx, c, block)
	if err != nil {
		return nil, err
	}
	defer done()
	r := NewReport(block, senders)
	return r, r.Run(ctx, c.Hostname, block, source, upstream.Trial{Limit: total / Steps, Total: total})
}

// Steps is the part of its time that a way to a login gives to one step.
const Steps = 3
