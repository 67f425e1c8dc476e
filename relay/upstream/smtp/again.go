package smtp

import (
	"regexp"
	"slices"
	"strings"

	"postern/mail"
)

// What a server offers and refuses in use is done without, once more and at once, where the mail does not need it:
// BDAT becomes DATA, SIZE and the parameters of DSN are left out. The refusal said nothing of the mail.

// maxAgain bounds how often one attempt begins anew for that.
const maxAgain = 4

// chunkRefused takes a refusal of BDAT that is about the command. true: the message goes by DATA.
func (x *transaction) chunkRefused(stage mail.Stage, r mail.Reply) bool {
	c := x.c
	if !x.mayAgain || x.fault != nil || x.accepted == 0 || !c.ext.chunking || !unknownCommand(r, "bdat", "chunking") {
		return false
	}
	said := c.kept(r).String()
	c.learn("CHUNKING", "the upstream offers CHUNKING and does not take BDAT ("+said+"), so messages go by DATA")
	x.again = true
	return true
}

// unknownCommand reports a refusal of what the server does not know, or does not know here.
func unknownCommand(r mail.Reply, words ...string) bool {
	switch r.Code {
	case 500, 501, 502, 503, 504, 555:
		return true
	}
	return r.Permanent() && containsAny(r.Text, words...)
}

func containsAny(text string, words ...string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// resync ends the transaction that a refused BDAT left. A server that did not take the chunk for one reads the
// message as commands, and answers its first line before RSET: then the connection is of no use.
func (c *conn) resync() {
	if c.broken || c.said() {
		c.broken = true
		return
	}
	r, f := c.command(mail.StageData, "RSET\r\n")
	if f != nil || r.Code != 250 || c.said() {
		c.broken = true
		return
	}
	c.dirty = false
}

// doubt is what was left out because of a refusal that may have been about it, until it is known.
type doubt struct {
	stage mail.Stage
	names []string // keywords
	ext   extensions
	reply string
}

// mailParameterRefused takes a refusal of MAIL that may be about its parameters. true: it goes once more without them.
func (x *transaction) mailParameterRefused(r mail.Reply) bool {
	c := x.c
	if !x.mayAgain || c.doubt != nil || !badParameter(r) {
		return false
	}
	var names []string
	if c.ext.sizeOffered {
		names = append(names, "SIZE")
	}
	if c.ext.dsn && len(appendMailDSN(nil, x.t)) > 0 {
		names = append(names, "DSN")
	}
	if len(names) == 0 { // what is left the mail needs
		return false
	}
	if named := ofKeyword.FindString(r.Text); named != "" {
		keyword := map[string]string{"size": "SIZE", "ret": "DSN", "envid": "DSN", "dsn": "DSN"}[strings.ToLower(named)]
		names = slices.DeleteFunc(names, func(n string) bool { return n != keyword })
	}
	if len(names) == 0 {
		return false
	}
	c.doWithout(mail.StageMail, r, names)
	x.again = true
	return true
}

// rcptParameterRefused takes a refusal of RCPT that may be about NOTIFY or ORCPT. true: the recipient goes into another
// transaction without them.
func (x *transaction) rcptParameterRefused(i int, r mail.Reply) bool {
	c := x.c
	if !x.mayAgain || !x.withDSN || !badParameter(r) || len(appendRcptDSN(nil, &x.t.Recipients[i])) == 0 {
		return false
	}
	if c.doubt == nil {
		c.doWithout(mail.StageRcpt, r, []string{"DSN"})
	}
	x.rest, x.lessened = append(x.rest, i), true
	return true
}

func (c *conn) doWithout(stage mail.Stage, r mail.Reply, names []string) {
	c.doubt = &doubt{stage: stage, names: names, ext: c.ext, reply: c.kept(r).String()}
	for _, name := range names {
		c.ext.deny(name)
	}
}

// closeDoubt says whether leaving out helped. If not, the refusal was about something else.
func (c *conn) closeDoubt(stage mail.Stage, helped bool) {
	d := c.doubt
	if d == nil || d.stage != stage {
		return
	}
	c.doubt = nil
	if !helped {
		c.ext = d.ext
		return
	}
	for _, name := range d.names {
		words := "the upstream offers " + name + " and does not take its parameters (" + d.reply +
			"), so they are left out"
		c.learn(name, words)
	}
}

// ofKeyword finds which parameter a reply is about.
var ofKeyword = regexp.MustCompile(`(?i)\b(size|ret|envid|dsn|body|8bitmime|smtputf8)\b`)

var ofParameter = regexp.MustCompile(`(?i)` +
	`(unsupported|unknown|unrecogni[sz]ed|invalid|bad|illegal) (\w+ )?(option|parameter|argument)|` +
	`(option|parameter|argument)s? (\S+ )?(is |are )?(unsupported|unknown|unrecogni[sz]ed|invalid|illegal|` +
	`not (supported|recogni[sz]ed|implemented))`)

// badParameter reports a refusal that may be about a parameter of MAIL or RCPT (RFC 5321 §4.1.1.11), and not about
// the address.
func badParameter(r mail.Reply) bool {
	if !r.Permanent() || ofAddress(r) {
		return false
	}
	switch r.Code {
	case 555, 504, 501:
		return true
	}
	return r.Enhanced == "5.5.4" || ofParameter.MatchString(r.Text)
}
