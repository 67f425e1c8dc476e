// Package profile knows the providers that people send through: where they listen, what they allow, how they refuse. It
// is data, one file per provider, each with its sources and their dates, and what is uncertain. A profile sets
// defaults: relay.toml overrides them, and EHLO supplies what a profile leaves out.
//
// Failure semantics: the files are embedded; if one cannot be parsed, its first use panics, and so do the tests.
package profile

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pelletier/go-toml/v2"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/replies"
)

//go:embed profiles/*.toml
var files embed.FS

// Generic is the profile of any smart host, whose defaults stand behind those of all others.
const Generic = "generic"

// What a provider does to our DKIM signature, or we to it, as relay.toml has it.
const (
	DKIMSign  = "sign"
	DKIMSkip  = "skip"
	DKIMStrip = "strip"
)

// Whom a provider lets send.
const (
	SenderAny       = "any"        // not looked at
	SenderDomain    = "domain"     // addresses and domains that are confirmed there
	SenderMustMatch = "must-match" // the account that we log in as, its aliases, and whom it may send as
	SenderRewritten = "rewritten"  // others become the account
)

// What a provider does to mail with a null reverse-path, as reports have it (RFC 5321 §4.5.5).
const (
	NullAccepted = "accepted"
	NullRefused  = "refused"
	NullUnknown  = "unknown" // it is tried, and if it is refused, an address instead
)

// What a provider does to Message-ID.
const (
	MessageIDKept     = "kept"
	MessageIDReplaced = "replaced" // the trace has ours, the provider's logs another
	MessageIDUnknown  = "unknown"
)

// Profile is one provider. It is shared and never changed.
type Profile struct {
	Name    string   `toml:"-" json:"name"`
	Title   string   `toml:"title" json:"title"`
	Date    string   `toml:"date" json:"date"`               // when the facts were gathered
	Sources []string `toml:"sources" json:"sources"`         // where
	Unsure  []string `toml:"unsure" json:"unsure,omitempty"` // what is not confirmed, and so not relied on
	Notes   []string `toml:"notes" json:"notes,omitempty"`   // what a person must know
	Host    string   `toml:"host" json:"host,omitempty"`     // empty: to be written in relay.toml
	Example string   `toml:"host_example" json:"host_example,omitempty"`
	Ports   []Port   `toml:"ports" json:"ports"` // the first is used unless relay.toml says otherwise

	Mechanisms []string `toml:"mechanisms" json:"mechanisms"`           // in order of preference
	Username   string   `toml:"username" json:"username,omitempty"`     // the same for all customers
	Credential string   `toml:"credential" json:"credential,omitempty"` // what the password is
	// PasswordWarning is what whoever logs in with a password must know, a sentence; "": nothing.
	PasswordWarning string `toml:"password_warning" json:"password_warning,omitempty"`
	// other hosts of the provider, * for any text
	HostPatterns []string `toml:"host_patterns" json:"host_patterns,omitempty"`

	MaxConnections        int      `toml:"max_connections" json:"max_connections"` // for each identity
	MessagesPerConnection int      `toml:"messages_per_connection" json:"messages_per_connection"`
	IdleClose             Duration `toml:"idle_close" json:"idle_close"`
	// for each identity, in the grammar of limits
	Rate []string `toml:"rate" json:"rate,omitempty"`
	// octets, 0: as EHLO says
	MaxMessageSize int64 `toml:"max_message_size" json:"max_message_size,omitempty"`
	// larger envelopes are split
	MaxRecipients    int      `toml:"max_recipients" json:"max_recipients"`
	AssumeExtensions []string `toml:"assume_extensions" json:"assume_extensions,omitempty"`
	DenyExtensions   []string `toml:"deny_extensions" json:"deny_extensions,omitempty"`

	DKIM       string `toml:"dkim" json:"dkim"`
	SenderRule string `toml:"sender_rule" json:"sender_rule"`
	NullSender string `toml:"null_sender" json:"null_sender"`
	MessageID  string `toml:"message_id" json:"message_id"`
	DNS        DNS    `toml:"dns" json:"dns"`

	// ReplyID finds the provider's own id in the text of its reply to a message, RE2 with a group named id; empty where
	// that reply has none. It is what the provider's support and logs ask for.
	ReplyID        string `toml:"reply_id" json:"reply_id,omitempty"`
	ReplyIDExample string `toml:"reply_id_example" json:"reply_id_example,omitempty"` // a reply seen in the field
	replyID        *regexp.Regexp

	Ends  []End  `toml:"end" json:"ends,omitempty"` // what will not be taken any more
	Rules []Rule `toml:"rule" json:"rules,omitempty"`
}

// Port is a port with the use of TLS there, written "587 starttls".
type Port struct {
	Number int    `json:"port"`
	TLS    string `json:"tls"`
}

// UnmarshalText reads what String writes.
func (p *Port) UnmarshalText(text []byte) error {
	number, use, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{upstream.TLSStartTLS, upstream.TLSImplicit, upstream.TLSNone},
		use) {
		return fmt.Errorf("%q is not a port with its use of TLS", text)
	}
	p.Number, p.TLS = int(n), use
	return nil
}

func (p Port) String() string { return strconv.Itoa(p.Number) + " " + p.TLS }

// Duration is a length of time as time.ParseDuration reads it.
type Duration time.Duration

// UnmarshalText reads "1h30m".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf(`%q is not a duration, write one such as "30s", "5m" or "24h"`, text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Std returns the duration for package time.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the shortest spelling: "1h", "30s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Rule is an replies.Rule as files have it.
type Rule struct {
	Name string `toml:"name" json:"name"`
	// Stages are those of mail.Stage, "session" for all before MAIL and "message" for all from MAIL on; empty: every
	// stage.
	Stages     []string `toml:"stages" json:"stages,omitempty"`
	Code       string   `toml:"code" json:"code,omitempty"`
	Enhanced   string   `toml:"enhanced" json:"enhanced,omitempty"`
	Text       string   `toml:"text" json:"text,omitempty"`
	Class      string   `toml:"class" json:"class"` // as mail.Class writes it
	Scope      string   `toml:"scope" json:"scope,omitempty"`
	RetryAfter Duration `toml:"retry_after" json:"retry_after,omitempty"`
	Quota      Duration `toml:"quota" json:"quota,omitempty"`
	Slow       bool     `toml:"slow" json:"slow,omitempty"`
	Rest       bool     `toml:"rest" json:"rest,omitempty"`
	Login      bool     `toml:"login" json:"login,omitempty"`
	Example    string   `toml:"example" json:"example"` // a reply seen in the field
}

// Names returns the names of all profiles: the generic one first, then by alphabet.
func Names() []string {
	var names []string
	for _, p := range All() {
		names = append(names, p.Name)
	}
	return names
}

// ForHost returns the name of the profile whose provider a host belongs to, "" for none.
func ForHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, p := range load() {
		if p.Host != "" && host == p.Host || slices.ContainsFunc(p.HostPatterns, func(pattern string) bool {
			matched, err := path.Match(pattern, host)
			return err == nil && matched
		}) {
			return p.Name
		}
	}
	return ""
}

// All returns all profiles in the order of Names.
func All() []*Profile { return load() }

// Get returns the profile of a provider.
func Get(name string) (*Profile, bool) {
	for _, p := range load() {
		if p.Name == name {
			return p, true
		}
	}
	return nil, false
}

var load = sync.OnceValue(func() []*Profile {
	all, err := read()
	if err != nil {
		panic("profile: " + err.Error())
	}
	return all
})

func read() ([]*Profile, error) {
	entries, err := files.ReadDir("profiles")
	if err != nil {
		return nil, err
	}
	generic, err := readFile(Generic)
	if err != nil {
		return nil, err
	}
	all := []*Profile{generic}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".toml")
		if name == Generic {
			continue
		}
		p, err := readFile(name)
		if err != nil {
			return nil, err
		}
		p.inherit(generic)
		all = append(all, p)
	}
	slices.SortFunc(all[1:], func(a, b *Profile) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func readFile(name string) (*Profile, error) {
	data, err := files.ReadFile(path.Join("profiles", name+".toml"))
	if err != nil {
		return nil, err
	}
	p, err := parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// parse reads one file and makes sure that its rules are good.
func parse(name string, data []byte) (*Profile, error) {
	p := &Profile{Name: name}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(p); err != nil {
		return nil, err
	}
	if _, err := replies.Compile(p.UpstreamRules()); err != nil {
		return nil, err
	}
	for i := range p.Ends {
		if err := p.Ends[i].check(); err != nil {
			return nil, err
		}
		p.Ends[i].Provider = name
	}
	p.DNS.complete()
	return p, p.compileReplyID()
}

const idGroup = "id"

func (p *Profile) compileReplyID() (err error) {
	if p.ReplyID == "" {
		return nil
	}
	if p.replyID, err = regexp.Compile(p.ReplyID); err != nil {
		return fmt.Errorf("reply_id: %w", err)
	}
	if p.replyID.SubexpIndex(idGroup) < 0 {
		return fmt.Errorf("reply_id %q has no group named %s", p.ReplyID, idGroup)
	}
	return nil
}

// IDIn returns what the provider calls a message, from its reply to it; "" where that does not say.
func (p *Profile) IDIn(r mail.Reply) string {
	if p.replyID == nil || r.Code/100 != 2 {
		return ""
	}
	found := p.replyID.FindStringSubmatch(r.Text)
	if found == nil {
		return ""
	}
	return found[p.replyID.SubexpIndex(idGroup)]
}

// inherit fills in what the profile leaves to the generic one.
func (p *Profile) inherit(g *Profile) {
	fill(&p.MaxConnections, g.MaxConnections)
	fill(&p.MessagesPerConnection, g.MessagesPerConnection)
	fill(&p.IdleClose, g.IdleClose)
	fill(&p.MaxRecipients, g.MaxRecipients)
	fill(&p.DKIM, g.DKIM)
	fill(&p.SenderRule, g.SenderRule)
	fill(&p.NullSender, g.NullSender)
	fill(&p.MessageID, g.MessageID)
	if p.Mechanisms == nil {
		p.Mechanisms = g.Mechanisms
	}
}

func fill[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// PortFor returns the port for a use of TLS, and the use for a port; zero and empty are what nobody has written. ok is
// false where the profile does not know.
func (p *Profile) PortFor(number int, use string) (port Port, ok bool) {
	for _, known := range p.Ports {
		if (number == 0 || number == known.Number) && (use == "" || use == known.TLS) {
			return known, true
		}
	}
	return Port{}, false
}

// UpstreamRules returns the reply rules for an smtp.Config.
func (p *Profile) UpstreamRules() []replies.Rule {
	rules := make([]replies.Rule, len(p.Rules))
	for i := range p.Rules {
		rules[i] = p.Rules[i].Upstream()
	}
	return rules
}

// Upstream converts the rule. A stage or class that does not exist is left for upstream to refuse.
func (r *Rule) Upstream() replies.Rule {
	return replies.Rule{
		Name: r.Name, Stages: stages(r.Stages), Code: r.Code, Enhanced: r.Enhanced, Text: r.Text,
		Class: class(r.Class), Scope: replies.Scope(r.Scope),
		RetryAfter: r.RetryAfter.Std(), Quota: r.Quota.Std(),
		Slow: r.Slow, Rest: r.Rest, Login: r.Login, Example: r.Example,
	}
}

// Check reports a rule that cannot be followed.
func (r *Rule) Check() error {
	if class(r.Class) == mail.Unknown {
		return fmt.Errorf("class %q is none of recipient-fault, message-fault, deferral, account-fault, back-pressure",
			r.Class)
	}
	_, err := replies.Compile([]replies.Rule{r.Upstream()})
	return err
}

// stageGroups are words for many stages.
var stageGroups = map[string][]mail.Stage{
	"session": {mail.StageGreeting, mail.StageEHLO, mail.StageTLS, mail.StageAuth},
	"message": {mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot},
}

func stages(names []string) []mail.Stage {
	var list []mail.Stage
	for _, name := range names {
		if group, ok := stageGroups[name]; ok {
			list = append(list, group...)
		} else {
			list = append(list, mail.Stage(name))
		}
	}
	return list
}

// class finds the class of a name, mail.Unknown for none.
func class(name string) mail.Class {
	for c := mail.RecipientFault; c <= mail.BackPressure; c++ {
		if c.String() == name {
			return c
		}
	}
	return mail.Unknown
}
