package api

import (
	"context"
	"net/http"

	"postern/operate"
	"postern/relay/clientsetup"
)

// proofAPI serves the ways in which accounts log in.
type proofAPI struct{ of accountAPI }

// proofRoutes are those of the ways in which an account logs in, which logins and devices both have.
func (a accountAPI) proofRoutes(s *server) []route {
	detail := a.route(http.MethodGet, "/{login}/mechanisms", "mechanisms", "In which ways a "+a.one+" can log in",
		operate.SeeAccounts, notFound, conflict)
	detail.about = "The mechanisms of all listeners, why it cannot use one, and the keys that prove it (EXTERNAL)."
	pin := a.route(http.MethodPost, "/{login}/certificates", "pin", "Let a client's key prove a "+a.one,
		operate.EditAccount, notFound, conflict)
	pin.status, pin.about = http.StatusCreated, "Beside those that do already; 20 at most. "+
		"The SHA-256 is that of the public key (SubjectPublicKeyInfo) in hexadecimal digits, not of the certificate."
	unpin := a.route(http.MethodDelete, "/{login}/certificates/{key}", "unpin", "Let a key prove a "+a.one+" no more",
		operate.EditAccount, notFound, conflict)
	unpin.status, unpin.about = http.StatusNoContent, "Its open sessions end."
	p := proofAPI{a}
	return []route{handle(s, detail, p.mechanisms), handle(s, pin, p.pin), handle(s, unpin, p.unpin)}
}

// clientRoutes are those of mail programs.
func (a accountAPI) clientRoutes(s *server) []route {
	card := a.route(http.MethodGet, "/{login}/client", "client", "What it takes to set up a mail program for a login",
		operate.SeeAccounts, notFound, conflict)
	card.about = "Servers, what to do in each kind of program, and the DNS records by which they find it."
	profile := a.route(http.MethodGet, "/{login}/mobileconfig", "mobileconfig", "The profile for Apple's devices",
		operate.SeeAccounts, notFound, conflict)
	profile.about = "It has no password. `document` is the file, in base64."
	p := proofAPI{a}
	return []route{handle(s, card, p.client), handle(s, profile, p.profile)}
}

func (a proofAPI) mechanisms(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[operate.Detailed], error) {
	v, err := a.of.ops.Accounts.Show(ctx, by, a.of.of, in.Login)
	if err != nil {
		return nil, err
	}
	v.Mechanisms = append([]operate.Mechanism{}, v.Mechanisms...)
	for i := range v.Mechanisms {
		v.Mechanisms[i].Listeners = append([]string{}, v.Mechanisms[i].Listeners...)
	}
	return &shown[operate.Detailed]{v}, nil
}

type pin struct {
	OfLogin
	Body struct {
		Key string `json:"key" minLength:"1" maxLength:"65536" doc:"Certificate or public key (PEM), or its SHA-256."`
	}
}

func (a proofAPI) pin(ctx context.Context, by operate.Actor, in *pin) (*made[operate.Pinned], error) {
	c, err := a.of.ops.ClientCertificates.Pin(ctx, by, a.of.of, in.Login, []byte(in.Body.Key))
	if err != nil {
		return nil, err
	}
	key := c.Digest.String()
	return &made[operate.Pinned]{a.of.location(c.Login) + "/certificates/" + key,
		operate.Pinned{Key: key, Subject: c.Subject, Added: c.Added}}, nil
}

type unpin struct {
	OfLogin
	Key string `path:"key" maxLength:"400" doc:"Its SHA-256 in hexadecimal digits."`
}

func (a proofAPI) unpin(ctx context.Context, by operate.Actor, in *unpin) (*struct{}, error) {
	return nil, a.of.ops.ClientCertificates.UnpinKey(ctx, by, a.of.of, in.Login, in.Key)
}

// ClientCard is everything that a person needs to set up a mail program.
type ClientCard struct {
	Login    string         `json:"login"`
	Address  string         `json:"address" doc:"That mail is sent from; empty: not known."`
	Outgoing []ClientServer `json:"outgoing" doc:"The best first."`
	Incoming *ClientServer  `json:"incoming,omitempty"`
	Families []ClientFamily `json:"families"`
	Records  []ClientRecord `json:"records" doc:"Of the address's domain."`
	Notes    []string       `json:"notes" doc:"What does not fit."`
}

// ClientServer is a server as it is typed into a mail program.
type ClientServer clientsetup.Server

// ClientFamily is a kind of mail program, and what to do in it.
type ClientFamily clientsetup.Family

// ClientRecord is a DNS record by which mail programs find their settings.
type ClientRecord clientsetup.Record

func (a proofAPI) client(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[ClientCard], error) {
	card, err := a.of.ops.Clients.Card(ctx, by, in.Login)
	if err != nil {
		return nil, err
	}
	out := ClientCard{Login: card.Login, Address: card.Address, Incoming: (*ClientServer)(card.Incoming),
		Outgoing: []ClientServer{}, Families: []ClientFamily{}, Records: []ClientRecord{},
		Notes: append([]string{}, card.Notes...)}
	for _, s := range card.Outgoing {
		out.Outgoing = append(out.Outgoing, ClientServer(s))
	}
	for _, f := range card.Families {
		f.Steps = append([]string{}, f.Steps...)
		out.Families = append(out.Families, ClientFamily(f))
	}
	for _, r := range card.Records {
		out.Records = append(out.Records, ClientRecord(r))
	}
	return &shown[ClientCard]{out}, nil
}

// AppleProfile is Apple's profile of a login.
type AppleProfile struct {
	Document []byte `json:"document"`
	Signed   bool   `json:"signed"`
	Why      string `json:"why,omitempty" doc:"It is not signed."`
}

func (a proofAPI) profile(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[AppleProfile], error) {
	p, err := a.of.ops.Clients.AppleProfile(ctx, by, in.Login)
	if err != nil {
		return nil, err
	}
	return &shown[AppleProfile]{AppleProfile{p.Document, p.Signed, p.Why}}, nil
}
