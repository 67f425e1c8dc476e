package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/upstream/advice"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/replies"
	"postern/relay/upstream/storm"
)

// maxPasted bounds what is read from standard input, in octets.
const maxPasted = 64 << 10

// judgeOptions are the flags of upstream judge.
type judgeOptions struct {
	stage, provider, upstream string
}

func (a *app) upstreamJudge() *cobra.Command {
	var o judgeOptions
	cmd := &cobra.Command{
		Use:   "judge REPLY",
		Short: "Say how a provider's reply is read: whose fault it is, what becomes of the mail, which rule says so",
		Long: `Say how a reply is read: whose matter it is, what becomes of the mail, which rule decides, how long is
waited, and what to do. REPLY is what the provider said, with its code, as a log or the trace has it; lines are
separated by line ends or by \r\n written out. "-" reads it from standard input. Nothing is sent, and no relay.toml is
needed without --upstream.`,
		Example: `  postern upstream judge "550 5.7.1 Sending too fast"
  postern upstream judge --provider gmail --stage rcpt \
    "552-5.2.2 The email account that you tried to reach\r\n552 5.2.2 is over quota"
  postern upstream judge --upstream office - < reply.txt`,
		Args: wrongUsage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := readRefusal(cmd.InOrStdin(), args)
			if err != nil {
				return usage(cmd, err)
			}
			block, err := a.judged(cmd, o)
			if err != nil {
				return err
			}
			j, err := judge(block, reply, o.stage)
			if err != nil {
				return usage(cmd, err)
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), j)
			}
			return j.write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.stage, "stage", "", "the reply answered this `stage`: "+strings.Join(stageNames(),
		", ")+" (default dot)")
	cmd.Flags().StringVar(&o.provider, "provider", "", "read it as this `profile` does (default generic)")
	cmd.Flags().StringVar(&o.upstream, "upstream", "",
		"read it as this `[[upstream]]` of relay.toml does, with its own rules")
	cmd.MarkFlagsMutuallyExclusive("provider", "upstream")
	return withJSON(cmd)
}

type replyStage struct {
	stage mail.Stage
	what  string
}

// replyStages are the stages that have replies, in their order, with what a reply answers there.
var replyStages = []replyStage{
	{mail.StageGreeting, "the greeting"}, {mail.StageEHLO, "EHLO"}, {mail.StageTLS, "STARTTLS"},
	{mail.StageAuth, "the login"},
	{mail.StageMail, "MAIL FROM"}, {mail.StageRcpt, "RCPT TO"}, {mail.StageData, "DATA"},
	{mail.StageDot, "the message"},
}

func stageNames() (names []string) {
	for _, s := range replyStages {
		names = append(names, string(s.stage))
	}
	return names
}

// judgement is how a reply is read.
type judgement struct {
	Reply      replyView  `json:"reply"`
	Stage      mail.Stage `json:"stage"`
	StageGiven bool       `json:"stage_given"`
	Provider   string     `json:"provider"`
	Upstream   string     `json:"upstream,omitempty"`
	reading
	RetryAfter profile.Duration `json:"retry_after,omitempty"`
	Quota      profile.Duration `json:"quota,omitempty"`
	Slow       bool             `json:"slow,omitempty"`
	Rest       bool             `json:"rest,omitempty"`
	Login      bool             `json:"login,omitempty"`
	Mail       string           `json:"mail"` // what becomes of it, in plain words
	Advice     *advice.Advice   `json:"advice,omitempty"`
	Other      []reading        `json:"other,omitempty"` // stages at which it is read in another way
	// Proposal is a rule for relay.toml, where none knew the reply.
	Proposal string `json:"proposal,omitempty"`
}

// replyView is a reply as --json prints it.
type replyView struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text"`
}

// reading is what a reply means at some stages.
type reading struct {
	Stages []mail.Stage  `json:"stages,omitempty"`
	Class  string        `json:"class"`
	Scope  replies.Scope `json:"scope,omitempty"`
	Rule   string        `json:"rule"`
	From   string        `json:"from"` // relay.toml, a profile, or generic
}

func (r reading) same(o reading) bool {
	return r.Class == o.Class && r.Scope == o.Scope && r.Rule == o.Rule && r.From == o.From
}

// judge reads a reply by the rules of an upstream; stage "" is the likeliest.
func judge(block *config.Upstream, reply mail.Reply, given string) (*judgement, error) {
	stage := mail.StageDot
	if given != "" {
		stage = mail.Stage(strings.ToLower(given))
		if !slices.Contains(stageNames(), string(stage)) {
			return nil, fmt.Errorf("--stage %q is none of %s", given, strings.Join(stageNames(), ", "))
		}
	}
	rules, err := replies.Compile(block.ReplyRules())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	read := func(stage mail.Stage) (replies.Rule, reading) {
		rule, number := rules.Classify(stage, reply, now)
		return rule, reading{Class: rule.Class.String(), Scope: rule.Scope, Rule: rule.Name,
			From: ruleOrigin(block, number)}
	}
	rule, first := read(stage)
	j := &judgement{
		Reply: replyView{reply.Code, reply.Enhanced, reply.Text}, Stage: stage, StageGiven: given != "",
		Provider: block.Provider, Upstream: block.Name, reading: first,
		RetryAfter: profile.Duration(rule.RetryAfter.Round(time.Second)), Quota: profile.Duration(rule.Quota),
		Slow: rule.Slow, Rest: rule.Rest,
		Login: rule.Login, Mail: becomes(rule), Advice: advice.For(block.Provider, stage, reply),
	}
	if j.Advice != nil {
		j.Advice = j.Advice.Filled(block.Username, "")
	}
	if rule.Name == mail.RuleNone {
		j.Proposal = storm.Storm{Reply: reply, Stage: stage}.Rule()
	}
	if given == "" {
		j.others(read)
	}
	return j, nil
}

// others gathers the stages at which the reply means something else.
func (j *judgement) others(read func(mail.Stage) (replies.Rule, reading)) {
	for _, s := range replyStages {
		_, r := read(s.stage)
		if r.same(j.reading) {
			continue
		}
		i := slices.IndexFunc(j.Other, r.same)
		if i < 0 {
			i = len(j.Other)
			j.Other = append(j.Other, r)
		}
		j.Other[i].Stages = append(j.Other[i].Stages, s.stage)
	}
}

// judged is the upstream whose rules count: of relay.toml, or one of a provider.
func (a *app) judged(cmd *cobra.Command, o judgeOptions) (*config.Upstream, error) {
	if o.upstream == "" {
		name := o.provider
		name = cmp.Or(name, profile.Generic)
		if _, ok := profile.Get(name); !ok {
			return nil, usage(cmd, fmt.Errorf("there is no profile %q; there are %s", name,
				strings.Join(profile.Names(), ", ")))
		}
		return smtpOnly(cmd, &config.Upstream{Provider: name})
	}
	c, err := a.read()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Upstreams, func(u config.Upstream) bool { return u.Name == o.upstream })
	if i < 0 {
		return nil, usage(cmd, unknownUpstream(c, o.upstream))
	}
	return smtpOnly(cmd, &c.Upstreams[i])
}

func smtpOnly(cmd *cobra.Command, u *config.Upstream) (*config.Upstream, error) {
	if u.ByGraph() {
		return nil, usage(cmd, errors.New("microsoft-graph answers by HTTP, not by replies of SMTP: there are no "+
			"reply rules for it"))
	}
	return u, nil
}

// ruleOrigin says where a rule stands.
func ruleOrigin(u *config.Upstream, number int) string {
	switch {
	case number < 0:
		return profile.Generic
	case number < len(u.Rules):
		return "relay.toml"
	}
	return "profile " + u.Provider
}

// codeInText finds where a reply begins in a line of a log.
var (
	codeInText = regexp.MustCompile(`(?:^|[\s:"'(>])([2-5][0-9][0-9])(?:[ -]|$)`)
	codeOfLine = regexp.MustCompile(`^[2-5][0-9][0-9](?:[ -]|$)`)
)

// readRefusal reads a reply as people paste it: a word in front, lines broken anew, the last line missing.
func readRefusal(stdin io.Reader, args []string) (mail.Reply, error) {
	text := strings.Join(args, " ")
	if text == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, maxPasted))
		if err != nil {
			return mail.Reply{}, fmt.Errorf("read the reply: %w", err)
		}
		if data, err = textfile.Text(data); err != nil {
			return mail.Reply{}, fmt.Errorf("the reply on standard input %w", err)
		}
		text = string(data)
	}
	text = strings.NewReplacer(`\r\n`, "\n", `\n`, "\n", "\r\n", "\n", "\r", "\n").Replace(text)
	at := codeInText.FindStringSubmatchIndex(text)
	if at == nil {
		return mail.Reply{}, fmt.Errorf("%q has no reply code: write the whole reply, such as 550 5.7.1 Sending too "+
			"fast", mail.Cut(text, 80))
	}
	reply, err := replies.Parse(wireLines(text[at[2]:]))
	switch {
	case err != nil:
		return mail.Reply{}, fmt.Errorf("%q is no reply of SMTP: %w", mail.Cut(text, 80), err)
	case !reply.Temporary() && !reply.Permanent():
		return mail.Reply{}, fmt.Errorf("%d is no refusal: only replies that begin with 4 or 5 are judged", reply.Code)
	}
	return reply, nil
}

// wireLines makes lines of a reply out of pasted ones: those without a code go on, and only the last ends the reply.
func wireLines(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case codeOfLine.MatchString(line) && (len(lines) == 0 || line[:3] == lines[0][:3]):
			lines = append(lines, line+" ")
		case len(lines) > 0:
			lines[len(lines)-1] += line + " "
		}
	}
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		lines[i] = line[:3] + separator + strings.TrimSpace(line[4:])
	}
	return strings.Join(lines, "\r\n")
}
