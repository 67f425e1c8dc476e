package smtp

import (
	"context"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// probe is one test under way.
type probe struct {
	u        *Upstream
	trial    upstream.Trial
	steps    []upstream.Step
	identity string // who the connection is for
	sender   string // whose mail the steps are for, if not everybody's
}

// TestSenders goes the way of a delivery up to the login, and on to MAIL for each sender, followed by RSET: no
// recipient is named and nothing is sent. It returns what happened up to the first failure; a sender that is refused
// does not keep the others from being tried. Its connections are its own: they do not count among the slots, and the
// identity hears nothing of the outcome. With AsThemselves each sender is logged in as itself, on a connection of its
// own; one whose login is refused is tried as the configured username, which is how its mail would go.
func (u *Upstream) TestSenders(ctx context.Context, t upstream.Trial) []upstream.Step {
	if t.Limit > 0 {
		u = u.limited(t.Limit)
	}
	p := &probe{u: u, trial: t, identity: u.cfg.Username}
	if u.cfg.Dial == nil || u.cfg.Resolve != nil {
		f := p.each("resolve", func() (string, *fault) {
			addrs, f := u.resolve(ctx)
			return joinAddrs(addrs), f
		})
		if f != nil {
			return p.steps
		}
	}
	if t.AsThemselves {
		p.themselves(ctx, t.Senders)
	} else {
		p.connection(ctx, t.Senders)
	}
	return p.steps
}

// themselves logs in as username, to which mail falls back, and then as each sender.
func (p *probe) themselves(ctx context.Context, senders []mail.Address) {
	if f := p.connection(ctx, nil); f != nil && f.stage != mail.StageAuth {
		return // the same for everybody
	}
	for _, from := range senders {
		if ctx.Err() != nil {
			return
		}
		if from.IsNull() { // reports go as the username
			p.identity, p.sender = p.u.cfg.Username, from.Path()
			p.connection(ctx, []mail.Address{from})
			continue
		}
		p.identity, p.sender = mail.LowerASCII(from.String()), from.String()
		f := p.connection(ctx, []mail.Address{from})
		if f != nil && f.stage == mail.StageAuth && f.class == mail.AccountFault && p.u.cfg.Username != "" {
			p.identity = p.u.cfg.Username
			p.connection(ctx, []mail.Address{from})
		}
	}
}

// connection opens one, asks for the senders, and closes it. The fault is what kept it from being of use.
func (p *probe) connection(ctx context.Context, senders []mail.Address) *fault {
	c, f := p.open(ctx)
	if f != nil {
		return f
	}
	release := c.due.watch(ctx)
	own := p.sender
	for _, from := range senders {
		p.sender = senderName(from)
		p.mail(c, from)
		if c.broken {
			break
		}
	}
	p.sender = own
	release()
	p.u.end(c)
	return nil
}

func (p *probe) open(ctx context.Context) (*conn, *fault) {
	if p.trial.Total > 0 {
		bounded, cancel := context.WithTimeout(ctx, p.trial.Total)
		defer cancel()
		ctx = bounded
	}
	return p.u.open(ctx, p.identity, p.each)
}

// senderName is how a step names its sender: "<>" is the null reverse-path.
func senderName(from mail.Address) string {
	if from.IsNull() {
		return from.Path()
	}
	return from.String()
}

// mail asks for one sender and takes the question back (RFC 5321 §4.1.1.5).
func (p *probe) mail(c *conn, from mail.Address) {
	p.each("mail", func() (string, *fault) {
		ascii, ok := from.ASCII()
		line := "MAIL FROM:<" + ascii.String() + ">"
		if !ok {
			if !c.ext.utf8 {
				return "", &fault{stage: mail.StageMail, class: mail.MessageFault, ours: true,
					reply: mail.R(553, "5.6.7", "the upstream does not offer SMTPUTF8, which this sender needs")}
			}
			line += " SMTPUTF8"
		}
		r, f := c.command(mail.StageMail, line+"\r\n")
		switch {
		case f != nil:
			return "", f
		case r.Code != 250:
			f = c.refused(mail.StageMail, r, from)
		}
		if !c.broken {
			if reset, lost := c.command(mail.StageMail, "RSET\r\n"); lost != nil || reset.Code != 250 {
				c.broken = true
			}
		}
		seen, _, _ := strings.Cut(c.kept(r).String(), "\n")
		return from.Path() + ": " + seen, f
	})
}

// each runs one step and notes its time and what came of it.
func (p *probe) each(name string, run func() (string, *fault)) *fault {
	p.trial.Begins(name)
	begun := time.Now()
	seen, f := run()
	s := upstream.Step{Name: name, OK: f == nil, Took: time.Since(begun), Seen: mail.Printable(seen), Sender: p.sender,
		Identity: p.identity}
	if strings.Contains(seen, "\n") {
		s.Seen = seen // of a parsed reply, which is printable line by line
	}
	if f != nil {
		s.Cause, s.Reply, s.Ours = p.u.explain(f, p.identity), f.reply, f.rule == nil
	}
	p.steps = append(p.steps, s)
	p.trial.Ends(s)
	return f
}
