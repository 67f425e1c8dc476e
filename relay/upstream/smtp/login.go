package smtp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"postern/mail"
	"postern/relay/upstream"
)

// auth logs in with the first configured mechanism that is offered. A refusal of neither password nor token leads to
// the next one, and is remembered; a refusal of the login itself is final: each further attempt would count towards a
// lockout.
func (c *conn) auth(identity, token string) (string, *fault) {
	cfg := &c.u.cfg
	if !c.secure && cfg.TLS != upstream.TLSNone { // cannot happen; if it does, no password goes out
		return "", c.accountFault(mail.StageAuth, "4.7.11", nil, "no verified TLS, so no login")
	}
	if cfg.Token == nil && identity != cfg.Username {
		return "", c.accountFault(mail.StageAuth, "4.7.8", nil,
			"there are no credentials for the upstream identity "+mail.Printable(identity))
	}
	var refused *fault
	for names := c.common(); len(names) > 0; {
		name := names[0]
		names = names[1:]
		m := c.newMechanism(name, identity, token)
		if m == nil {
			continue
		}
		f := c.login(m)
		switch {
		case f == nil:
			return strings.Join(append([]string{name + " as " + identity}, c.notes...), "; "), nil
		case c.broken:
			return name + " as " + identity, f
		case f.reply.Code == 432 && c.secure && name != sasl.Plain && slices.Contains(names, sasl.Plain):
			c.notes = append(c.notes, "the upstream wants a login by PLAIN before it knows the password for "+name)
			names = []string{sasl.Plain} // RFC 4954 §6
		case f.unheard && (c.secure || showsPassword(name)): // in clear nobody talks us into showing it
			c.learn(mechanismHabit(name),
				"the upstream offers the login mechanism "+name+" and does not take it ("+f.reply.String()+")")
		default:
			return name + " as " + identity, f
		}
		refused = f
	}
	if refused != nil {
		return "", refused
	}
	offer := "none"
	if len(c.ext.auth) > 0 {
		offer = strings.Join(c.ext.auth, " ")
	}
	return "", c.accountFault(mail.StageAuth, "4.7.9", errNoMechanism,
		c.peer+" offers no AUTH mechanism that we may use; it offers: "+offer)
}

// common are the configured mechanisms that are offered, without those that the server was found not to take; where
// there are no others, with them.
func (c *conn) common() []string {
	var good, bad []string
	for _, name := range c.u.cfg.Mechanisms {
		switch {
		case !c.ext.offers(name):
		case c.has(mechanismHabit(name)):
			bad = append(bad, name)
		default:
			good = append(good, name)
		}
	}
	if len(good) == 0 {
		return bad
	}
	return good
}

func (c *conn) newMechanism(name, identity, token string) sasl.Client {
	if c.u.cfg.Token != nil {
		return c.tokenMechanism(name, identity, token)
	}
	return c.u.mechanism(name)
}

// showsPassword reports a mechanism that gives the password to whoever listens.
func showsPassword(name string) bool { return name == sasl.Plain || name == sasl.Login }

// The habits of a mechanism: it is offered and not taken; its initial response is not read.
func mechanismHabit(name string) string { return "AUTH " + name }
func bareHabit(name string) string      { return "AUTH " + name + " alone" }

func (c *conn) login(m sasl.Client) *fault {
	f := (&exchange{c: c, m: m}).run()
	if f == nil {
		return nil
	}
	if refused, ok := m.(explainer); ok && f.err == nil {
		f.err = c.cause(refused.challenged())
	}
	return f
}

// exchange is one AUTH command with its challenges (RFC 4954 §4).
type exchange struct {
	c       *conn
	m       sasl.Client
	name    string
	initial []byte
	given   bool // the initial response was
	steps   int  // challenges answered
}

// maxCommandLine is what AUTH with its initial response may fill (RFC 4954 §4 with RFC 5321 §4.5.3.1.4).
const maxCommandLine = 512

func (x *exchange) run() *fault {
	c, err := x.c, error(nil)
	if x.name, x.initial, err = x.m.Start(); err != nil {
		return c.accountFault(mail.StageAuth, "4.7.0", err, x.name+" cannot be started")
	}
	r, f := x.begin()
	for range maxAuthSteps {
		if f != nil {
			return f
		}
		if r.Code != 334 {
			return x.end(r)
		}
		response, err := x.answer(decodeChallenge(r))
		if err != nil {
			return x.cancel(err)
		}
		x.hide(response)
		r, f = c.command(mail.StageAuth, base64.StdEncoding.EncodeToString(response)+"\r\n")
	}
	return c.accountFault(mail.StageAuth, "4.7.0", errUnexpectedChallenge,
		c.peer+" does not end the "+x.name+" exchange")
}

// begin sends AUTH. An initial response that the server does not take as such goes once more by itself.
func (x *exchange) begin() (mail.Reply, *fault) {
	c, line := x.c, "AUTH "+x.name
	if x.initial == nil || c.has(bareHabit(x.name)) {
		return c.command(mail.StageAuth, line+"\r\n")
	}
	x.hide(x.initial)
	full := line + " " + encodeResponse(x.initial) + "\r\n"
	if len(full) > maxCommandLine {
		return c.command(mail.StageAuth, line+"\r\n")
	}
	r, f := c.command(mail.StageAuth, full)
	if x.given = true; f != nil || !initialRefused(r) {
		return r, f
	}
	x.given = false
	r, f = c.command(mail.StageAuth, line+"\r\n")
	if f == nil && r.Code == 334 {
		x.learnBare()
	}
	return r, f
}

// hide keeps a whole response out of what is told where it has a password so short that it is not known within.
func (x *exchange) hide(response []byte) {
	if password := x.c.u.cfg.Password; len(password) < shortPassword && showsPassword(x.name) {
		if bytes.Contains(response, []byte(password)) {
			x.c.secrets.Add(base64.StdEncoding.EncodeToString(response))
		}
	}
}

// shortPassword is how many octets the scrubber finds in base64 at any place.
const shortPassword = 9

func (x *exchange) learnBare() {
	x.c.learn(bareHabit(x.name),
		"the upstream does not take the first response of "+x.name+" within the AUTH command, so it goes by itself")
}

func (x *exchange) answer(challenge []byte) ([]byte, error) {
	defer func() { x.steps++ }()
	switch {
	case x.initial == nil:
	case !x.given:
		x.given = true
		return x.initial, nil
	case x.steps == 0 && x.unread(challenge):
		x.learnBare()
		return x.initial, nil
	}
	response, err := x.m.Next(challenge)
	if errors.Is(err, sasl.ErrUnexpectedServerChallenge) {
		err = errUnexpectedChallenge
	}
	return response, err
}

// unread reports a challenge which shows that the server did not read the initial response. PLAIN has no other.
func (x *exchange) unread(challenge []byte) bool {
	m, ok := x.m.(unreader)
	return x.name == sasl.Plain || ok && m.Unread(challenge)
}

// cancel ends an exchange that the server does not keep to (RFC 4954 §4). Where nothing but the mechanism is in
// doubt, another one may do. A server that fails to prove what SCRAM asks of it gets no password by another way.
func (x *exchange) cancel(cause error) *fault {
	c := x.c
	_, lost := c.command(mail.StageAuth, "*\r\n") // the answer does not matter
	f := c.accountFault(mail.StageAuth, "4.7.0", cause, c.peer+" did not keep to "+x.name+": "+cause.Error())
	ofChallenge := errors.Is(cause, errUnexpectedChallenge)
	if lost == nil && ofChallenge && (x.name == sasl.Plain || x.name == "CRAM-MD5") {
		f.unheard, c.broken = true, false
	}
	return f
}

func (x *exchange) end(r mail.Reply) *fault {
	c := x.c
	if r.Code != 235 {
		f := c.refused(mail.StageAuth, r)
		f.unheard = aboutMechanism(r)
		return f
	}
	if m, ok := x.m.(prover); ok {
		if err := m.Finish(); err != nil {
			return c.accountFault(mail.StageAuth, "4.7.0", err,
				c.peer+" accepted the login but did not prove that it knows the password")
		}
	}
	return nil
}

var (
	ofLogin = regexp.MustCompile(`(?i)password|credential|fail|denied|incorrect|wrong|invalid log[io]n|\buser|` +
		`disabled|locked|suspend|blocked|too many|log in|sign ?in|browser|account|https?://`)
	ofMechanism = regexp.MustCompile(`(?i)mechanism|too weak|unsupported|not supported|authentication (type|method)`)
)

// aboutMechanism reports a refusal of AUTH that is about the mechanism, or its form, and not about the login (RFC 4954
// §4, §6, and what servers say that do not know a command). 534 is also Google's for passwords that an application may
// not use.
func aboutMechanism(r mail.Reply) bool {
	switch r.Code {
	case 504, 538:
		return true
	case 534:
		return ofMechanism.MatchString(r.Text) || !ofLogin.MatchString(r.Text)
	case 500, 501, 502, 503, 555:
		return !ofLogin.MatchString(r.Text)
	}
	return false
}

// initialRefused reports a refusal that may be about the initial response alone: 501 5.5.4, or 500 5.5.6 for a long
// line.
func initialRefused(r mail.Reply) bool {
	return (r.Code == 500 || r.Code == 501 || r.Code == 555) && !ofLogin.MatchString(r.Text)
}
