package clientsetup

import (
	"fmt"

	"postern/relay/config"
)

// The names of families that others know by name.
const (
	Thunderbird = "Thunderbird"
	Apple       = "Apple Mail, iPhone, iPad"
)

// guide writes what to do in each kind of program.
type guide struct {
	s        *Setup
	c        *Card
	told     told
	incoming string // a step
	all      []Family
}

// apart is a step where one password is typed.
const apart = "If the mailbox has another password than this login, the program asks for it once more."

// families says what to do in each kind of program. There is an outgoing server.
func (s *Setup) families(c *Card, t told) []Family {
	g := &guide{s: s, c: c, told: t, incoming: incomingStep(c.Incoming)}
	g.desktop()
	g.telephones()
	g.others()
	return g.all
}

// incomingStep is the step of the mailbox.
func incomingStep(in *Server) string {
	switch {
	case in == nil:
		return "The incoming server stays as your mailbox provider says."
	case in.OAuth:
		return fmt.Sprintf("The incoming server is %s, which wants OAuth 2.0: the mailbox is set up as its provider "+
			"says, and only the outgoing server is changed.", in.Host)
	}
	return fmt.Sprintf("Incoming server (%s): %s, %s; user name %s; the password of the mailbox.",
		protocols[in.Protocol], in.Host, security(*in), in.Username)
}

// add adds a program: what to do where it finds its settings, or else the step of the mailbox and what follows it.
func (g *guide) add(name string, automatic bool, steps, otherwise []string) {
	if !automatic {
		steps = append([]string{g.incoming}, otherwise...)
	}
	g.all = append(g.all, Family{name, automatic, steps})
}

// typed is a step where the best server is typed.
func (g *guide) typed(where string) string {
	best := g.c.Outgoing[0]
	return fmt.Sprintf("%s: %s, %s; user name %s; the password of this login.", where, best.Host, security(best),
		g.c.Login)
}

func (g *guide) desktop() {
	g.add(Thunderbird, g.told.thunderbird,
		[]string{"Account settings, Add mail account: type your name, " + g.c.Address + " and the password, press " +
			"Continue, then Done.", apart},
		[]string{g.typed("Settings, Outgoing server (SMTP), Add")})
	g.add("Outlook, classic (Windows)", g.told.outlook,
		[]string{"File, Add account: type " + g.c.Address + " and press Connect.", apart},
		[]string{g.typed("File, Account settings, Change, More settings, Outgoing server and Advanced"),
			`There, tick "My outgoing server (SMTP) requires authentication"; leave "Secure Password Authentication" ` +
				`off.`})
	g.all = append(g.all, Family{"Outlook, new (Windows, Mac, telephones)", false, []string{
		"It reads and sends through servers of Microsoft, which keep the password: it works only where the listener " +
			"can be reached from the Internet, and not for logins that are bound to networks.",
		"Add account, Choose provider, IMAP.", g.incoming, g.typed("SMTP")}})
}

func (g *guide) telephones() {
	g.add(Apple, g.told.apple,
		[]string{"Open this page in Safari and install the profile in Settings: " + g.s.ProfileURL(g.c.Address),
			"It asks for the password of the mailbox and for that of this login."},
		[]string{g.typed("Settings, Mail, Accounts, Add account, Other; Outgoing mail server")})
	g.add("Android: Thunderbird, K-9 Mail, FairEmail", g.told.thunderbird,
		[]string{"Add account: type " + g.c.Address + " and the password.", apart},
		[]string{g.typed("Outgoing server settings")})
}

func (g *guide) others() {
	g.add("Any other mail program", false, nil, []string{g.typed("Outgoing server (SMTP)"),
		`Authentication is "normal password", never "encrypted password", SPA or NTLM.`})
	application := g.typed("SMTP")
	if start := startTLS(g.c.Outgoing); start != nil && start.Port != g.c.Outgoing[0].Port {
		application += fmt.Sprintf(" .NET's SmtpClient knows STARTTLS alone: %s, %s.", start.Host, security(*start))
	}
	g.all = append(g.all, Family{"Applications (PHP, .NET, Python, Node.js)", false, []string{application}})
}

// startTLS is the first server with STARTTLS, nil without one.
func startTLS(servers []Server) *Server {
	for i := range servers {
		if servers[i].TLS == config.StartTLS {
			return &servers[i]
		}
	}
	return nil
}

// security says port and encryption as programs name them.
func security(s Server) string {
	if s.TLS == config.StartTLS {
		return fmt.Sprintf("port %d, STARTTLS", s.Port)
	}
	return fmt.Sprintf("port %d, SSL/TLS", s.Port)
}
