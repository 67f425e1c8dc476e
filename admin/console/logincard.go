package console

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"

	"postern/auth"
	"postern/operate"
	"postern/relay/config"
)

// addLoginPage adds the login of a person, addDevicePage that of a device.
var (
	addLoginPage = page{path: "/logins/add/login", title: "New login", under: "/logins", needs: operate.AddAccount,
		sheet: "loginadd", show: func(*visit) (any, error) { return &newLogin{}, nil }, actions: []action{
			{path: "/logins/act/add", needs: operate.AddAccount, do: addLogin},
		}}
	addDevicePage = page{path: "/logins/add/device", title: "New device", under: "/logins", needs: operate.AddAccount,
		sheet: "loginadd", show: func(*visit) (any, error) { return &newLogin{Device: true}, nil }}
)

// newLogin is the body of the form for a new login or device.
type newLogin struct {
	Device bool
	Form   loginForm
}

// cardOf is what is to be typed into a device or a program, with the password that is shown this once.
type card struct {
	operate.Credential
	Device  bool
	Renewed bool // the account was there, its password is new
	Chosen  bool // somebody chose the password, and knows it
	Server  *Place
	Others  []Place
	Senders []string // patterns; none: all its mail is refused
	Rights  []string // accounts at the provider that need the right to send as them
	Far     bool     // no listener takes connections from its networks
	Local   bool     // nobody but programs of this machine reaches a listener
	Reach   operate.Reach
	Back    string

	Accepted *operate.Accepted // a device that was learned: it needs no login at its address
}

// Sheet is what is typed into a device or a program, for the part "sheet".
type Sheet struct {
	Heading, Login string
	Password       string // "": somebody chose it, and knows it
	Server         *Place // nil: nothing is open to other machines
	Others         []Place
	Instead        string   // an address in the place of the server's name
	Senders        []string // patterns
	None           string   // what it means that there are none; "": nothing is said of senders then
	Certificate    string   // path of the certificate that may have to be trusted; "": there is none
	Certificates   string   // path of its other forms; "": there is none
	Without        string   // the address where no login is needed; "": there is none
}

// Place is where to log in, in words.
type Place struct {
	Host, Port, Encryption string

	devices, local bool // for devices; of this machine alone
}

// Sheet is the part of the card that is printed.
func (c *card) Sheet(none string) Sheet {
	s := Sheet{Heading: c.Login, Login: c.Login, Password: c.Password, Server: c.Server,
		Others: c.Others, Senders: c.Senders, None: none}
	if c.Device {
		s.Instead = c.Instead()
	}
	if c.Accepted != nil {
		s.Without = c.Accepted.Address
	}
	if c.Reach.Certificate {
		s.Certificate, s.Certificates = certificateFile.path, certificatesPage.path
	}
	return s
}

// addLogin adds an account and shows its card. What was typed wrong comes back with the reason.
func addLogin(v *visit) (string, any, error) {
	f := typedLogin(v)
	n := operate.NewAccount{Login: f.Login, Device: v.PostForm.Get("device") == "1", Senders: listed(f.Senders),
		Networks: listed(f.Networks), Groups: listed(f.Groups), Note: f.Note, Password: v.PostForm.Get("password")}
	made, err := v.console.Operations.Accounts.Add(v.Context(), v.actor, n)
	if _, theirs := operate.KindOf(err); theirs {
		f.Problem = plain(1000, err)
		if own, is := errors.AsType[*operate.Error](err); is && own.Suggest != "" {
			f.Senders = plain(maxFilter, own.Suggest) // to be sent again with it, or another
		}
		return "", &newLogin{n.Device, f}, nil
	}
	if err != nil {
		return "", nil, err
	}
	u, err := v.console.Operations.Accounts.Get(v.Context(), v.actor, operate.Everybody, made.Login)
	if err != nil {
		return "", nil, err
	}
	c, err := cardOf(v, &u, made)
	return "", otherSheet{"card", "Values to type in", c}, err
}

// newPassword makes another password and shows it once. To load the answer again makes no other one: the stamp of the
// account is not the same any more.
func newPassword(v *visit) (string, any, error) {
	login, back := askedLogin(v)
	u, err := v.console.Operations.Accounts.Get(v.Context(), v.actor, operate.Everybody, login)
	if err != nil {
		return "", nil, err
	}
	if !v.confirmed() {
		c := ofLogin(login, back, "/logins/act/password", field{"stamp", stampOf(&u)})
		c.Question, c.Verb, c.Danger = v.t("Make a new password for %s?", plain(120, login)),
			v.t("Make a new password"), true
		c.Meaning = v.t("The old one stops working at once, and open connections end. The new one is shown once.")
		return "", &c, nil
	}
	if v.PostForm.Get("stamp") != stampOf(&u) {
		v.leave("Nothing was done: %s has been changed meanwhile.", login)
		return back, nil, nil
	}
	made, err := v.console.Operations.Accounts.Password(v.Context(), v.actor, operate.Everybody, login, "")
	if err != nil {
		return "", nil, err
	}
	c, err := cardOf(v, &u, made)
	if err != nil {
		return "", nil, err
	}
	c.Renewed = true
	return "", otherSheet{"card", "Values to type in", c}, nil
}

// stampOf changes with the password.
func stampOf(u *auth.User) string { return strconv.FormatInt(u.Changed.UnixNano(), 36) }

// cardOf makes the card of an account.
func cardOf(v *visit, u *auth.User, made operate.Credential) (*card, error) {
	servers, err := v.console.Operations.Accounts.Servers(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	c := &card{Credential: made, Device: u.Device, Chosen: made.Password == "", Back: loginPath(u.Login)}
	if err := c.describe(v, u); err != nil {
		return nil, err
	}
	for i, s := range servers {
		place := Place{s.Host, s.Port, encryptionOf(v, s.TLS), s.Devices, s.Local}
		if i == 0 {
			c.Server, c.Local = &place, s.Local
			continue
		}
		c.Others = append(c.Others, place)
	}
	return c, nil
}

// describe adds what the device may send as, and how it finds us.
func (c *card) describe(v *visit, u *auth.User) error {
	a := v.console.Operations.Clients
	sending, err := a.Sending(v.Context(), v.actor, *u)
	if err != nil {
		return err
	}
	c.Senders = sending.Senders
	if c.Rights, err = a.NeedsRight(v.actor, sending.Senders); err != nil {
		return err
	}
	if c.Far, err = a.Unreached(v.actor, *u); err != nil {
		return err
	}
	c.Reach, err = a.Reach(v.Context(), v.actor, v.console.Look)
	return err
}

// Instead is an address that can be typed in instead of the name.
func (c *card) Instead() string {
	if i := slices.IndexFunc(c.Reach.Addresses, netip.Addr.Is4); i >= 0 {
		return c.Reach.Addresses[i].String()
	}
	if len(c.Reach.Addresses) > 0 {
		return c.Reach.Addresses[0].String()
	}
	return ""
}

// certificateFile is the page from which devices get the certificate that they are to trust.
var certificateFile = page{path: "/certificate.pem", title: "Certificate", under: "/logins",
	needs: operate.SeeAccounts, sheet: "login", show: func(v *visit) (any, error) {
		data, err := v.console.Operations.Clients.Certificate(v.Context(), v.actor)
		if err != nil {
			return nil, err
		}
		return attachment{"postern-certificate.pem", "application/x-pem-file", data}, nil
	}}

// encryptionOf is what devices call a way to use TLS.
func encryptionOf(v *visit, tls string) string {
	switch tls {
	case config.Auto:
		return v.t("STARTTLS, or SSL/TLS: whichever the device has")
	case config.StartTLS:
		return v.t("STARTTLS (some devices say TLS)")
	case config.Implicit:
		return v.t("SSL/TLS (some devices say SMTPS)")
	}
	return v.t("none")
}
