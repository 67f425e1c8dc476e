// Package config owns relay.toml: its keys, their meaning and defaults, and which values and combinations are refused.
//
// Failure semantics: nothing is guessed. A file with problems yields all of them at once, each with file, line and key,
// and no configuration. Loading does no name resolution and no network traffic; it reads relay.toml and the files that
// it names. A loaded Config is complete (every default filled in, every path absolute, every secret read) and never
// changes: a reload loads a new one. No error, warning or printed Config contains a secret.
//
// Keys inside lists of tables are named with the number of their block, counted from one: listener[2].address is in the
// second [[listener]].
//
// Each field's `default` tag is the default as relay.toml spells it, list elements separated by commas; a field without
// one is empty unless its comment says otherwise.
package config

import (
	"net/netip"

	"postern/relay/upstream"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/replies"
)

// Config is the whole of relay.toml.
type Config struct {
	// Hostname stands in the banner, EHLO, Received and Message-ID. Default: the machine's name.
	Hostname string `toml:"hostname"`
	// DataDir holds the store, keys, tokens and temporary files.
	DataDir string `toml:"data_dir" default:"/var/lib/postern"`

	Store     Store      `toml:"store"`
	Privacy   Privacy    `toml:"privacy"`
	TLS       TLS        `toml:"tls"`
	Listeners []Listener `toml:"listener"` // default: submission on :587 and submissions on :465
	Auth      Auth       `toml:"auth"`
	// Policies are asked in order; for each setting the first block that matches and sets it wins.
	// DefaultPolicy stands behind them.
	Policies  []Policy   `toml:"policy"`
	DKIM      []DKIM     `toml:"dkim"`
	Upstreams []Upstream `toml:"upstream"`
	Routes    []Route    `toml:"route"` // first match wins; none: every upstream in file order
	Delivery  Delivery   `toml:"delivery"`
	Admin     Admin      `toml:"admin"`
	// Autoconfig tells mail programs their settings.
	Autoconfig Autoconfig `toml:"autoconfig"`
	// SelfService is the page where people make app passwords.
	SelfService SelfService `toml:"self_service"`
	Alerts      []Alert     `toml:"alert"` // every hook is told of what it asks for
	Log         Log         `toml:"log"`

	doc      *document
	warnings []Problem
}

// Store says where messages, users and traces are kept, and how much of the disk they may take.
type Store struct {
	// URL is "sqlite", embedded in DataDir, or a server of PostgreSQL, which several nodes share.
	URL StoreURL `toml:"url" default:"sqlite"`
	// Password is that of the user in URL. Default: none, as with a certificate or the socket of this machine.
	Password Secret `toml:"password"`
	// SealKey seals what is secret in the database, in base64, the same on all nodes. SQLite has a file in DataDir.
	SealKey Secret `toml:"seal_key"`
	// Node is the name of this node, which no other has. Default: the machine's name.
	Node string `toml:"node"`
	// Degraded is what becomes of new mail while the database is away: DegradedRefuse or DegradedHandoff.
	Degraded string `toml:"degraded" default:"refuse"`
	// History is how long finished messages and refused sessions stay searchable.
	History Duration `toml:"history" default:"30d"`
	// MaxSize is the size of the store above which new mail is answered 452 4.3.1; 0: no bound.
	MaxSize Size `toml:"max_size" default:"10GB"`
	// HistorySize is how much of it finished messages and refused sessions may take. Default: a quarter of MaxSize.
	HistorySize Size `toml:"history_size"`
	// MinFree is the free space on the store's disk below which new mail is answered 452 4.3.1. With SQLite only.
	MinFree Size `toml:"min_free" default:"200MB"`
}

// Privacy says how long what happened to mail is known, and by which addresses. It holds for trace and statistics.
type Privacy struct {
	// History is [store] history under another name; it may stand here instead. Default: that one.
	History Duration `toml:"history"`
	// Statistics is how long sums by the day are kept; those by the hour go after 90 days, or with them.
	Statistics Duration `toml:"statistics" default:"730d"`
	// Recipients and Clients say what becomes of addresses: kept, hashed, or cut to the domain or network.
	Recipients string `toml:"recipients" default:"keep"`
	Clients    string `toml:"clients" default:"keep"`
	// After is the age at which it happens; 0: before anything is written.
	After Duration `toml:"after" default:"0s"`
}

// TLS is what the listeners present. Without files a self-signed pair is made in DataDir.
type TLS struct {
	CertFile string `toml:"cert_file"` // PEM, leaf first; read again when it changes
	KeyFile  string `toml:"key_file"`  // PEM; others than owner and group must not be able to read it
	// RSACertFile and RSAKeyFile are presented beside it to old devices that know no ECDSA, at listeners with profile
	// Appliance. Default: self-signed.
	RSACertFile string     `toml:"rsa_cert_file"`
	RSAKeyFile  string     `toml:"rsa_key_file"`
	MinVersion  TLSVersion `toml:"min_version" default:"1.2"`
	// SelfSignedNames are names and addresses of the self-signed certificate beside Hostname.
	SelfSignedNames []string `toml:"self_signed_names"`
	ACME            *ACME    `toml:"acme"` // instead of files; see acme.go
}

// The ways in which a listener or an upstream uses TLS.
const (
	StartTLS = "starttls" // required before AUTH and MAIL
	Implicit = "implicit" // from the first octet
	Auto     = "auto"     // listeners: TLS-first or STARTTLS, as the client begins
	NoTLS    = "none"     // behind networks only
)

// What a listener does with lines over 998 octets.
const (
	EncodeLines = "encode" // the parts that have them become quoted-printable
	RefuseLines = "refuse"
)

// The ways in which a listener knows its clients.
const (
	AuthRequired = "required"
	AuthNetwork  = "network" // a client in Networks needs no AUTH and is Login
)

// Listener is one address that accepts clients.
type Listener struct {
	// Name appears in logs, policies and routes. Default: submission, or submissions where TLS is implicit.
	Name string `toml:"name"`
	// Address is host:port; an empty host means every interface. Default: :587, or :465 where TLS is implicit.
	Address string `toml:"address"`
	TLS     string `toml:"tls" default:"starttls"`  // StartTLS, Implicit, Auto or NoTLS
	Auth    string `toml:"auth" default:"required"` // AuthRequired or AuthNetwork
	// Networks may connect at all; empty: any. Must be set where TLS is NoTLS or Auth is AuthNetwork.
	Networks Networks `toml:"networks"`
	Login    string   `toml:"login"`                      // the account of a client let in by its network
	Profile  string   `toml:"profile" default:"standard"` // "standard" or Appliance
	// MinVersion overrides TLS.MinVersion, which is its default. Only with Appliance it may be below 1.2.
	MinVersion TLSVersion `toml:"min_version"`
	// wait this long for the upstream's verdict; 0: always queue first
	Handoff        Duration `toml:"handoff" default:"5s"`
	MaxMessageSize Size     `toml:"max_message_size" default:"35MB"`
	// EncodeLines or RefuseLines: what becomes of lines over 998 octets
	LongLines      string `toml:"long_lines" default:"encode"`
	MaxRecipients  int    `toml:"max_recipients" default:"1000"` // per message
	MaxConnections int    `toml:"max_connections" default:"2000"`
	// connections before TLS and login, beside MaxConnections
	MaxUnauthenticated  int `toml:"max_unauthenticated" default:"1000"`
	MaxConnectionsPerIP int `toml:"max_connections_per_ip" default:"50"`
	// longest silence between commands (RFC 5321 §4.5.3.2)
	IdleTimeout Duration `toml:"idle_timeout" default:"5m"`
	// from connection to successful AUTH, absolute
	AuthTimeout Duration `toml:"auth_timeout" default:"5m"`
	DataTimeout Duration `toml:"data_timeout" default:"3m"` // longest silence inside a transfer
	MaxSession  Duration `toml:"max_session" default:"24h"` // longest life of a connection
	// average below which a transfer is ended, after the first DataTimeout
	MinDataRate   Rate     `toml:"min_data_rate" default:"1KB/s"`
	ProxyProtocol Networks `toml:"proxy_protocol"` // load balancers that send a PROXY header
	// Mechanisms are those of SASL. Default: Auth.Mechanisms. See Config.Offered.
	Mechanisms []string `toml:"mechanisms"`
	// ClientCAFile has the authorities, PEM, whose certificates prove the login that they name, by EXTERNAL.
	ClientCAFile string `toml:"client_ca_file"`
	HideClient   bool   `toml:"hide_client" default:"true"` // no client address in Received
}

// Auth says how logins are proved.
type Auth struct {
	Mechanisms []string     `toml:"mechanisms" default:"PLAIN,LOGIN"`
	Sources    []AuthSource `toml:"source"` // asked in order; default: the store
	Lockout    Lockout      `toml:"lockout"`
}

// Lockout refuses a login, and an address, for Duration after Failures distinct wrong passwords within Window.
type Lockout struct {
	Failures int      `toml:"failures" default:"10"`
	Window   Duration `toml:"window" default:"10m"`
	Duration Duration `toml:"duration" default:"15m"`
}

// Policy says who may send as whom and how much. A nil list or empty string leaves its setting to the
// next block that matches; an empty list that was written sets it.
type Policy struct {
	// A block matches when every one of these that is set matches; one without any matches everybody.
	Logins    []string `toml:"logins"` // a star stands for any text
	Groups    []string `toml:"groups"`
	Networks  Networks `toml:"networks"`
	Listeners []string `toml:"listeners"`

	Senders        []string `toml:"senders"`         // address, *@domain, {login}, @group
	UnlistedSender string   `toml:"unlisted_sender"` // refuse | rewrite
	Recipients     []string `toml:"recipients"`      // allowed forward-paths; "!" before a pattern denies
	Limits         []string `toml:"limits"`          // "60 messages/minute", "2GB/day"
	OverLimit      string   `toml:"over_limit"`      // defer | refuse | hold | lock
	MaxHeld        int      `toml:"max_held"`        // messages of a login that hold keeps; 0: not set
}

// DefaultPolicy is the block that stands behind those of the file: a login sends as itself, to
// anybody, within limits that a person does not reach and a stolen password does.
func DefaultPolicy() Policy {
	return Policy{
		Senders:        []string{"{login}"},
		UnlistedSender: "refuse",
		Recipients:     []string{"*"},
		Limits: []string{"60 messages/minute", "1000 messages/day", "2000 recipients/day",
			"200 new recipients/day", "2GB/day"},
		OverLimit: "defer",
		MaxHeld:   500, // more than a person would look through
	}
}

// DKIM is a key from a file, beside those made by `postern dkim add`.
type DKIM struct {
	Domain   string `toml:"domain"`
	Selector string `toml:"selector"`
	KeyFile  string `toml:"key_file"` // PEM
}

// What happens to our signature at an upstream.
const (
	DKIMSign  = "sign"
	DKIMSkip  = "skip"
	DKIMStrip = "strip"
)

// Upstream is a provider that takes our mail, under one identity.
type Upstream struct {
	Name     string `toml:"name"`
	Provider string `toml:"provider" default:"generic"` // a profile: the defaults of what follows, see package profile
	Host     string `toml:"host"`
	// Port and TLS belong together: each of them defaults to what goes with the other at the provider.
	Port   int    `toml:"port"`
	TLS    string `toml:"tls"`     // StartTLS (required), Implicit or NoTLS
	CAFile string `toml:"ca_file"` // PEM trust anchors beside the system's
	Proxy  Secret `toml:"proxy"`   // the way out, see Via; its address may hold a password
	// CertFile and KeyFile are shown to an upstream that knows its clients by certificate: PEM, leaf first.
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
	// InsecureSkipVerify accepts any certificate; said by check, at start and in every delivery's trace.
	InsecureSkipVerify bool `toml:"insecure_skip_verify" default:"false"`
	// Networks are those that TLS none may reach beside loopback; Host is then checked when dialling, see MayDialPlain.
	Networks              Networks `toml:"networks"`
	Username              string   `toml:"username"`
	Password              Secret   `toml:"password"`
	Mechanisms            []string `toml:"mechanisms"`      // in order of preference
	MaxConnections        int      `toml:"max_connections"` // at once, for each upstream identity
	MessagesPerConnection int      `toml:"messages_per_connection"`
	IdleClose             Duration `toml:"idle_close"` // an unused connection is closed after this
	// same grammar as limits: messages or recipients, for each identity
	Rate           []string `toml:"rate"`
	MaxMessageSize Size     `toml:"max_message_size"` // 0: as EHLO says
	// Microsoft Graph: refuse or upload what is too large for one request
	LargeMail        string   `toml:"large_mail" default:"refuse"`
	MaxRecipients    int      `toml:"max_recipients"` // larger envelopes are split
	AssumeExtensions []string `toml:"assume_extensions"`
	DenyExtensions   []string `toml:"deny_extensions"`
	DKIM             string   `toml:"dkim"`        // DKIMSign, DKIMSkip or DKIMStrip
	SenderRule       string   `toml:"sender_rule"` // whom the provider lets send, as package profile names it
	// what the provider does to the null reverse-path, as package profile names it
	NullSender string `toml:"null_sender"`
	MessageID  string `toml:"message_id"` // what the provider does to it, as package profile names it
	// "Name: value", for each message that goes here; see AddedFields
	AddHeaders []string `toml:"add_headers"`

	DANE  bool   `toml:"dane" default:"false"` // not available in this version
	OAuth *OAuth `toml:"oauth"`                // instead of Password

	Rules []profile.Rule `toml:"rule"` // go before those of the provider
}

// MicrosoftGraph is the provider that is reached by HTTPS instead of SMTP.
const MicrosoftGraph = "microsoft-graph"

// ByGraph reports whether the upstream is reached through Microsoft Graph.
func (u *Upstream) ByGraph() bool { return u.Provider == MicrosoftGraph }

// WrittenRules are the reply rules of the block itself. They see the addresses that a reply repeats.
func (u *Upstream) WrittenRules() []replies.Rule {
	var rules []replies.Rule
	for i := range u.Rules {
		r := u.Rules[i].Upstream()
		r.Verbatim = true
		rules = append(rules, r)
	}
	return rules
}

// ReplyRules are the reply rules of the block, then those of its provider.
func (u *Upstream) ReplyRules() []replies.Rule {
	rules := u.WrittenRules()
	if p, ok := profile.Get(u.Provider); ok {
		rules = append(rules, p.UpstreamRules()...)
	}
	return rules
}

// Rates are the rates of the block. They were checked when the configuration was validated.
func (u *Upstream) Rates() ([]upstream.Rate, error) {
	var rates []upstream.Rate
	for _, text := range u.Rate {
		r, err := parseUpstreamRate(text)
		if err != nil {
			return nil, err
		}
		rates = append(rates, r)
	}
	return rates, nil
}

// Route chooses the upstreams of a message. A route matches when every condition that is set matches.
type Route struct {
	Logins     []string `toml:"logins"`
	Groups     []string `toml:"groups"`
	Listeners  []string `toml:"listeners"`
	Senders    []string `toml:"senders"`
	Recipients []string `toml:"recipients"`
	// Upstreams in order: the next is tried when the one before is down or paused.
	Upstreams []string `toml:"upstreams"`
}

// Delivery is how often and how long the queue tries.
type Delivery struct {
	Retry      []Duration `toml:"retry" default:"1m,5m,15m,30m,1h,2h,4h"` // the last value repeats
	Expire     Duration   `toml:"expire" default:"2d"`
	WarnAfter  Duration   `toml:"warn_after" default:"4h"` // 0: no delay report
	BounceFrom string     `toml:"bounce_from"`             // instead of the null reverse-path, at every upstream
}

// Admin is the HTTP listener for health, metrics and the console.
type Admin struct {
	Address string `toml:"address" default:"127.0.0.1:8587"` // "" switches it off
	// names that it may be asked for by, beside hostname, localhost and addresses
	Names []string `toml:"names"`
	// TLS serves everything there by HTTPS, with the certificate of [tls].
	TLS bool `toml:"tls" default:"false"`
	// Console serves the console and the API. Default: on loopback, and wherever TLS is.
	Console bool `toml:"console"`
	// URL is where browsers find the console. Default: localhost on loopback, else Hostname, with the port of Address.
	URL string `toml:"url"`
	// TrustedProxies are HTTP proxies whose X-Forwarded-For is believed: it says who the client is.
	TrustedProxies Networks   `toml:"trusted_proxies"`
	OIDC           *AdminOIDC `toml:"oidc"`
}

// Alert is a hook that is told of faults by HTTPS: a person hears of them without mail.
type Alert struct {
	URL    Secret   `toml:"url"` // https://, or http:// on this machine; its path and query are a secret
	Events []string `toml:"events" default:"upstream-paused,login-locked,queue-age,certificate-expiry,secret-expiry,report-failed,disk-full,dkim-key,login-source,danger"`
	// QueueAge is the age of the oldest message that waits from which queue-age is told.
	QueueAge Duration `toml:"queue_age" default:"1h"`
	CAFile   string   `toml:"ca_file"` // PEM trust anchors beside the system's
}

// Log is the form of the log on standard error.
type Log struct {
	Format string `toml:"format" default:"text"` // text | json
	Level  string `toml:"level" default:"info"`  // debug | info | warn | error
}

// MayDialPlain reports whether an upstream without TLS may be reached at addr: loopback, or inside its
// networks. The dialler asks after resolving Host, so that a name cannot lead outside.
func (u *Upstream) MayDialPlain(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsLoopback() || u.Networks.Contains(addr)
}
