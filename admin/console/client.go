package console

import (
	"strings"

	"postern/mail"
	"postern/operate"
	"postern/relay/clientsetup"
	"postern/relay/config"
)

// clientPage is what a person types into a mail program; profileFile is Apple's profile.
var (
	clientPage = page{path: "/logins/{login}/client", title: "Set up a mail program", under: "/logins",
		needs: operate.SeeAccounts, sheet: "client", show: showClient}
	profileFile = page{path: "/logins/{login}/profile.mobileconfig", title: "Set up a mail program", under: "/logins",
		needs: operate.SeeAccounts, sheet: "client", show: func(v *visit) (any, error) {
			p, err := v.console.Operations.Clients.AppleProfile(v.Context(), v.actor,
				mail.Cut(v.PathValue("login"), maxFilter))
			if err != nil {
				return nil, err
			}
			return attachment{"postern.mobileconfig", "application/x-apple-aspen-config", p.Document}, nil
		}}
)

// clientView is the body of the page.
type clientView struct {
	clientsetup.Card
	Best     *typed
	Others   []typed
	In       *typed
	Programs []program
	Doubts   []Said
	Reach    operate.Reach
	Local    bool
	Back     string
	Profile  string // path of Apple's; "": there is none
	MayRenew bool
}

// typed is a server as it is typed in.
type typed struct {
	clientsetup.Server
	Encryption string
}

// Family is what people call its protocol.
func (t typed) Family() string { return strings.ToUpper(plain(20, t.Protocol)) }

// program is what to do in a kind of mail program.
type program struct {
	Name      Said
	Automatic bool
	Steps     []Said
}

// Title implements titled.
func (c *clientView) Title() string { return plain(120, c.Login) }

func showClient(v *visit) (any, error) {
	clients := v.console.Operations.Clients
	card, err := clients.Card(v.Context(), v.actor, mail.Cut(v.PathValue("login"), maxFilter))
	if err != nil {
		return nil, err
	}
	view := viewClient(v, &card)
	if _, err := clients.AppleProfile(v.Context(), v.actor, card.Login); err == nil {
		view.Profile = loginPath(card.Login) + "/profile.mobileconfig"
	}
	if view.Reach, err = clients.Reach(v.Context(), v.actor, v.console.Look); err != nil {
		return nil, err
	}
	servers, err := v.console.Operations.Accounts.Servers(v.Context(), v.actor)
	view.Local = len(servers) > 0 && servers[0].Local // those for others come first
	return view, err
}

// viewClient is a card in words.
func viewClient(v *visit, card *clientsetup.Card) *clientView {
	view := &clientView{Card: *card, Back: loginPath(card.Login), MayRenew: v.may(operate.NewPassword)}
	for _, s := range card.Outgoing {
		view.Others = append(view.Others, typedOf(v, s))
	}
	if len(view.Others) > 0 {
		view.Best, view.Others = &view.Others[0], view.Others[1:]
	}
	if card.Incoming != nil {
		in := typedOf(v, *card.Incoming)
		view.In = &in
	}
	for _, f := range card.Families {
		p := program{Name: v.said(plain(120, f.Name)), Automatic: f.Automatic}
		for _, step := range f.Steps {
			p.Steps = append(p.Steps, v.said(plain(2000, step)))
		}
		view.Programs = append(view.Programs, p)
	}
	for _, note := range card.Notes {
		said := v.said(plain(1000, note))
		said.Text = capital(said.Text)
		view.Doubts = append(view.Doubts, said)
	}
	return view
}

func typedOf(v *visit, s clientsetup.Server) typed {
	if s.TLS == config.StartTLS {
		return typed{s, v.t("STARTTLS")}
	}
	return typed{s, v.t("SSL/TLS")}
}
