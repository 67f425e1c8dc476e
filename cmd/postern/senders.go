package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/outbound"
	relaystore "postern/relay/store"
	"postern/relay/upstream"
	"postern/relay/upstream/advice"
	"postern/relay/upstream/profile"
)

// maxTested bounds how many senders one test asks for: providers count what is asked.
const maxTested = 50

// testedSenders are the senders of a test.
type testedSenders struct {
	addresses []mail.Address
	reports   []mail.Address // what reports may have as their reverse-path, in the order of preference
	untested  []string       // what stands where senders are configured and is no address, or is one too many
	seen      map[string]bool
}

func (t *testedSenders) add(text string) {
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	key := strings.ToLower(text)
	if t.seen[key] {
		return
	}
	t.seen[key] = true
	a, err := mail.ParseAddress(text)
	if err != nil || strings.ContainsAny(text, "*{}") || len(t.addresses) >= maxTested {
		t.untested = append(t.untested, text)
		return
	}
	t.addresses = append(t.addresses, a)
}

// sendersOf gathers what relay.toml and the accounts name; extra comes first. Where there is no address, it is the one
// that the upstream is logged in as.
func (a *app) sendersOf(cmd *cobra.Command, c *config.Config, block config.Upstream, extra []string) (*testedSenders,
	error) {
	t := new(testedSenders)
	for _, text := range extra {
		if _, err := mail.ParseAddress(text); err != nil {
			return nil, usage(cmd, fmt.Errorf("--sender %q is no address: %w", text, err))
		}
		t.add(text)
	}
	for i := range c.Policies {
		for _, text := range c.Policies[i].Senders {
			t.add(text)
		}
	}
	own, err := sendersOfUsers(cmd.Context(), c)
	if err != nil {
		return nil, err
	}
	for _, text := range own {
		t.add(text)
	}
	if len(t.addresses) == 0 && strings.Contains(block.Username, "@") && !block.SendsAsSender() {
		t.add(block.Username)
	}
	if block.ByGraph() && !block.SendsAsSender() { // has no MAIL: a sender is checked with the message
		for _, address := range t.addresses {
			if strings.EqualFold(address.String(), block.Username) {
				continue // the mailbox itself
			}
			t.untested = append(t.untested, address.String())
		}
		t.addresses = nil
	}
	if !block.ByGraph() { // whose mailbox is the sender of all, reports too
		t.reports, err = reversePaths(c, block, t.addresses)
	}
	return t, err
}

// reversePaths are those that reports may have at an upstream; senders are whom reports go to.
func reversePaths(c *config.Config, block config.Upstream, senders []mail.Address) ([]mail.Address, error) {
	if c.Delivery.BounceFrom != "" {
		from, err := mail.ParseAddress(c.Delivery.BounceFrom)
		return []mail.Address{from}, err
	}
	var paths []mail.Address
	if block.NullSender != profile.NullRefused {
		paths = append(paths, mail.Address{})
	}
	if block.NullSender != profile.NullAccepted && len(senders) > 0 {
		paths = append(paths, outbound.ReportSender(block, senders[0]))
	}
	return paths, nil
}

// asked are all reverse-paths of a test, each once: those of mail, then those of reports.
func (t *testedSenders) asked() []mail.Address {
	return addOnce(slices.Clone(t.addresses), t.reports...)
}

// sendersOfUsers are those of `user add --sender`. A store that is not there yet has none, and is not made.
func sendersOfUsers(ctx context.Context, c *config.Config) ([]string, error) {
	if _, err := os.Stat(filepath.Join(c.DataDir, relaystore.FileName)); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	s, err := openStoreOf(ctx, c)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	users, err := s.Users(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, u := range users {
		all = append(all, u.Senders...)
	}
	return all, nil
}

// testStep is a step with what to do about it.
type testStep struct {
	upstream.Step
	Advice *advice.Advice `json:"advice,omitempty"`
}

// testReport is what `upstream test --json` prints.
type testReport struct {
	Upstream  string     `json:"upstream"`
	OK        bool       `json:"ok"`
	Steps     []testStep `json:"steps"`
	NotTested []string   `json:"not_tested,omitempty"` // configured senders that are patterns, or one too many
	Unproven  string     `json:"unproven,omitempty"`   // what a test without a message cannot find out
	why       string     // NotTested

	provider string
	senders  *testedSenders
	group    string // sender and identity whose heading was printed
}

func newReport(block config.Upstream, senders *testedSenders) *testReport {
	r := &testReport{Upstream: block.Name, OK: true, Steps: []testStep{}, NotTested: senders.untested,
		Unproven: unproven(block, senders),
		provider: providerOf(block), senders: senders}
	r.why = "They are patterns or too many; name some with --sender ADDRESS."
	if block.ByGraph() && !block.SendsAsSender() {
		r.why = "Graph checks the sender only with a message."
	}
	return r
}

// add takes a step that was made.
func (r *testReport) add(s upstream.Step) *testStep {
	step := testStep{Step: s}
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
func (s *testStep) excuse(senders *testedSenders) {
	null := mail.Address{}
	if s.OK || s.Sender != null.Path() || s.Ours || len(senders.reports) < 2 {
		return
	}
	s.OK, s.Cause = true, ""
	s.Seen = fmt.Sprintf("%s: %s\nReports have the reverse-path %s instead.", null.Path(), s.Reply,
		senders.reports[1].Path())
}

// unproven says what providers check only when they have the whole message.
func unproven(block config.Upstream, senders *testedSenders) string {
	switch {
	case len(senders.addresses) == 0 || block.SenderRule == "" || block.SenderRule == profile.SenderAny:
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

// writeStep prints a step, under a heading where it begins the mail of another sender.
func (r *testReport) writeStep(w io.Writer, s *testStep) {
	if s.Name != "mail" && s.Sender != "" && s.Sender+s.Identity != r.group {
		r.group = s.Sender + s.Identity
		fmt.Fprintf(w, "\nmail of %s, logged in as %s\n", s.Sender, s.Identity)
	}
	s.write(w)
}

// writeEnd prints what all steps come to.
func (r *testReport) writeEnd(w io.Writer) {
	if r.OK {
		fmt.Fprintln(w, "\nThe upstream would take mail from us.")
	}
	if len(r.NotTested) > 0 {
		fmt.Fprintf(w, "Senders that were not tried: %s. %s\n", strings.Join(r.NotTested, ", "), r.why)
	}
	if r.OK && r.Unproven != "" {
		fmt.Fprintln(w, r.Unproven)
	}
}

func (s *testStep) write(w io.Writer) {
	mark := "ok  "
	if !s.OK {
		mark = "FAIL"
	}
	seen := s.Seen
	seen = cmp.Or(seen, s.Sender)
	first, more, _ := strings.Cut(seen, "\n")
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %-9s %8s  %s", mark, s.Name, s.Took.Round(time.Millisecond),
		first), " "))
	for line := range strings.SplitSeq(more, "\n") {
		if line != "" {
			fmt.Fprintf(w, "%26s%s\n", "", line)
		}
	}
	if s.OK {
		return
	}
	cause := s.Cause
	if s.Advice != nil {
		cause = s.Advice.Cause
	}
	fmt.Fprintf(w, "\n      %s\n", cause)
	if s.Name != "mail" && !s.Ours && s.Reply.Code != 0 && !strings.Contains(cause, s.Reply.String()) {
		fmt.Fprintf(w, "      It said: %s\n", s.Reply)
	}
	if s.Advice != nil {
		writeFix(w, s.Advice)
	}
	fmt.Fprintln(w)
}

func writeFix(w io.Writer, a *advice.Advice) {
	for i, fix := range a.Fix {
		fmt.Fprintf(w, "      %d. %s\n", i+1, fix)
	}
	fmt.Fprintf(w, "      See %s\n", a.Source)
	if a.Unsure {
		fmt.Fprintln(w, "      (The provider's own text does not confirm every step.)")
	}
}

func addOnce[T comparable](list []T, more ...T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}
