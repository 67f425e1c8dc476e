package selfservice

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/clientsetup"
)

// Bounds of the form.
const (
	maxNetworks = 20
	maxSenders  = 10   // on a card
	maxName     = 100  // characters, as package operate has it
	maxTyped    = 2000 // octets of a field that is shown again
)

// form is the body of the form for a new password.
type form struct {
	Name     string
	Bound    bool // to Networks
	Networks string
	Choices  []choice
	Here     string            // the address that the request comes from; "": not known
	Error    string            // what is wrong with all of it
	Faults   map[string]string // by field

	prefixes []string
	lasts    time.Duration
}

// choice is how long a password may last.
type choice struct {
	Value, Label string
	Chosen       bool
}

const day = 24 * time.Hour

// spans are how long a password may last, unless [self_service] max_age is less.
var spans = []time.Duration{7 * day, 30 * day, 90 * day, 180 * day, 365 * day, 2 * 365 * day}

// choices are the spans up to the longest, which is one in any case. That chosen is asked for; 0: the longest up to a
// year.
func choices(v *console.Visit, longest, chosen time.Duration) (all []choice) {
	fit := slices.DeleteFunc(slices.Clone(spans), func(d time.Duration) bool { return d >= longest })
	fit = append(fit, longest)
	if chosen == 0 {
		for _, d := range fit {
			if d <= 365*day || chosen == 0 {
				chosen = d
			}
		}
	}
	for _, d := range fit {
		all = append(all, choice{strconv.Itoa(int(d / time.Second)), spanned(v, d), d == chosen})
	}
	return all
}

func spanned(v *console.Visit, d time.Duration) string {
	if years := int(d / (365 * day)); years > 0 && d%(365*day) == 0 {
		return v.T("%d years", years)
	}
	return v.Span(d)
}

// newForm is the form as it is first seen.
func (s passwords) newForm(v *console.Visit) *form {
	return &form{Here: access.ClientOf(v.Request), Faults: map[string]string{},
		Choices: choices(v, s.Config().SelfService.MaxAge.Std(), 0)}
}

func (s passwords) ask(v *console.Visit, _ *visitor) { s.show(v, http.StatusOK, s.newForm(v)) }

func (s passwords) show(v *console.Visit, status int, f *form) {
	v.Show(status, "mynew", v.T("New password"), f)
}

// read takes what was typed, with what is wrong with it.
func (s passwords) read(v *console.Visit) *form {
	f := s.newForm(v)
	f.Name = mail.Cut(strings.TrimSpace(v.PostForm.Get("name")), maxTyped)
	f.Bound = v.PostForm.Get("where") == "networks"
	f.Networks = lines(v.PostForm.Get("networks"))
	switch {
	case f.Name == "":
		f.Faults["name"] = v.T("Write what it is for.")
	case utf8.RuneCountInString(f.Name) > maxName || mail.Printable(f.Name) != f.Name:
		f.Faults["name"] = v.T("The name has more than %d characters, or some that cannot be shown.", maxName)
		f.Name = mail.Printable(f.Name)
	}
	if f.Bound {
		f.networks(v)
	}
	longest := s.Config().SelfService.MaxAge.Std()
	seconds, err := strconv.ParseInt(v.PostForm.Get("lasts"), 10, 32)
	f.lasts = time.Duration(seconds) * time.Second
	f.Choices = choices(v, longest, f.lasts)
	if err != nil || !slices.ContainsFunc(f.Choices, func(c choice) bool { return c.Chosen }) {
		f.Choices = choices(v, longest, 0)
		f.Faults["lasts"] = v.T("Choose how long it is to last.")
	}
	return f
}

// networks reads where the password may be used.
func (f *form) networks(v *console.Visit) {
	for each := range strings.FieldsFuncSeq(f.Networks, func(r rune) bool { return strings.ContainsRune("\n,;", r) }) {
		if each = strings.TrimSpace(each); each == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(each)
		if addr, isAddr := netip.ParseAddr(each); isAddr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
		}
		if err != nil {
			f.Faults["networks"] = v.T("%s is no network and no address. Write one such as 192.0.2.31 or 192.0.2.0/24.",
				mail.Cut(mail.Printable(each), 60))
			return
		}
		f.prefixes = append(f.prefixes, prefix.Masked().String())
	}
	switch {
	case len(f.prefixes) == 0:
		f.Faults["networks"] = v.T("Write at least one network or address, or choose Anywhere.")
	case len(f.prefixes) > maxNetworks:
		f.Faults["networks"] = v.T("Write at most %d networks or addresses.", maxNetworks)
	}
}

// lines is what was typed into a field of several lines, printable and bounded.
func lines(text string) string {
	all := strings.Split(strings.ReplaceAll(mail.Cut(text, maxTyped), "\r\n", "\n"), "\n")
	for i, line := range all {
		all[i] = mail.Printable(strings.ReplaceAll(line, "\t", " "))
	}
	return strings.TrimSpace(strings.Join(all, "\n"))
}

// add makes a password and shows it once. What was typed wrong comes back with the reason.
func (s passwords) add(v *console.Visit, who *visitor) {
	f := s.read(v)
	if len(f.Faults) > 0 {
		s.show(v, http.StatusUnprocessableEntity, f)
		return
	}
	list, err := s.Operations.AppPasswords.List(v.Context(), who.actor, who.person.Login)
	if err != nil {
		v.Refuse(err)
		return
	}
	if slices.ContainsFunc(list, func(k operate.AppPassword) bool { return k.Name == f.Name && !k.Expired(v.Now) }) {
		f.Faults["name"] = v.T("You have a password of this name already. Choose another name.")
		s.show(v, http.StatusConflict, f)
		return
	}
	made, err := s.Operations.AppPasswords.Add(v.Context(), who.actor, operate.NewAppPassword{Login: who.person.Login,
		Name: f.Name, Networks: f.prefixes, Expires: v.Now.Add(f.lasts)})
	switch kind, theirs := operate.KindOf(err); {
	case theirs && kind == operate.Conflict:
		f.Error = v.T("You have as many passwords as there may be (%d), or were locked meanwhile. Revoke one that is "+
			"not used any more.", s.Config().SelfService.MaxPasswords)
		s.show(v, http.StatusConflict, f)
	case theirs:
		f.Error = v.T("This password cannot be made; the relay's log says why.")
		s.Logger.Warn("self-service: an app password was refused", "login", who.person.Login, "err", err)
		s.show(v, http.StatusUnprocessableEntity, f)
	case err != nil:
		v.Refuse(err)
	default:
		s.showCard(v, who, &made)
	}
}

// card is the body of the page that shows a password once.
type card struct {
	Sheet     console.Sheet
	Warning   string // in English
	Address   string // of whoever may use Automatic and Profile
	Automatic bool   // Thunderbird finds the settings by itself
	Profile   string // where Apple's profile is; "": there is none
}

// showCard shows a password, whatever cannot be said beside it: it would be lost.
func (s passwords) showCard(v *console.Visit, who *visitor, made *operate.NewAppCredential) {
	c := s.card(v, made)
	sending, err := operate.SendingOf(s.Config(), s.userOf(v.Context(), who))
	if err != nil {
		s.Logger.Error("self-service: a card does not say what may be sent as", "login", made.Login, "err", err)
	} else {
		c.Sheet.Senders = sending.Senders[:min(len(sending.Senders), maxSenders)]
		c.Sheet.None = v.T("none yet: all its mail is refused")
	}
	v.Show(http.StatusOK, "mycard", v.T("The password for %s", made.AppPassword.Name), c)
}

// userOf is what counts for who may send as what.
func (s passwords) userOf(ctx context.Context, who *visitor) auth.User {
	u := auth.User{Login: who.person.Login, Groups: who.person.Groups, Senders: who.person.Senders}
	if who.person.Subject == "" {
		if id, err := s.Logins.Lookup(ctx, u.Login); err == nil {
			u.Groups, u.Senders = id.Groups, id.Senders
		}
	}
	return u
}

func (s passwords) card(v *console.Visit, made *operate.NewAppCredential) card {
	c := s.Config()
	setup := clientsetup.Of(c)
	sheet := console.Sheet{Heading: made.AppPassword.Name, Login: made.Login, Password: made.Password}
	for i, server := range setup.Outgoing {
		place := console.Place{Host: server.Host, Port: strconv.Itoa(server.Port), Encryption: v.Encryption(server.TLS)}
		if i == 0 {
			sheet.Server = &place
			continue
		}
		sheet.Others = append(sheet.Others, place)
	}
	shown := card{Sheet: sheet, Warning: made.Warning}
	told := setup.Card(made.Login, nil, clientsetup.Covers(c.CertOptions(s.Logger), v.Now))
	shown.Address = told.Address
	for _, f := range told.Families {
		switch {
		case f.Automatic && f.Name == clientsetup.Thunderbird:
			shown.Automatic = true
		case f.Automatic && f.Name == clientsetup.Apple:
			shown.Profile = setup.ProfileURL(told.Address)
		}
	}
	return shown
}
