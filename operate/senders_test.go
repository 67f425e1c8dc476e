package operate

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"postern/auth"
	"postern/relay/config"
)

const sending = `hostname = "relay.firma.example"
[[listener]]
address = ":587"
[[upstream]]
name = "microsoft365"
provider = "microsoft365"
username = "office@firma.example"
[[policy]]
groups = ["shop"]
senders = ["shop@firma.example", "{login}"]
`

// TestNoAccountIsSilent: an account that could send as nobody is not added unless that is wanted, and a sender that
// would do is named.
func TestNoAccountIsSilent(t *testing.T) {
	r := newRig(t)
	c := config.Parse("relay.toml", []byte(sending))
	r.Accounts.Options.Config = func() *config.Config { return c }
	for _, test := range []struct {
		n     NewAccount
		taken bool
	}{
		{NewAccount{Login: "printer", Device: true}, false},
		{NewAccount{Login: "printer", Device: true, Groups: []string{"other"}}, false},
		{NewAccount{Login: "printer", Device: true, WithoutSender: true}, true},
		{NewAccount{Login: "scanner", Senders: []string{"scans@firma.example"}}, true},
		{NewAccount{Login: "erp", Groups: []string{"shop"}}, true},
		{NewAccount{Login: "anna@firma.example"}, true},
	} {
		_, err := r.Accounts.Add(t.Context(), owner, test.n)
		if (err == nil) != test.taken {
			t.Errorf("%+v: %v", test.n, err)
		}
		if test.taken {
			continue
		}
		var fault *Error
		if !errors.As(err, &fault) || fault.Kind != Invalid || fault.Suggest != "printer@firma.example" ||
			!strings.Contains(fault.Msg, fault.Suggest) {
			t.Errorf("%+v", err)
		}
	}
	for _, n := range []struct {
		login string
		edit  AccountEdit
		says  bool
	}{
		{"scanner", AccountEdit{Senders: ListEdit{Clear: true}}, true},
		{"scanner", AccountEdit{Senders: ListEdit{Set: []string{"scans@firma.example"}}}, false},
		{"erp", AccountEdit{Groups: ListEdit{Clear: true}}, true},
		{"anna@firma.example", AccountEdit{Groups: ListEdit{Set: []string{"shop"}}}, false},
	} {
		_, changes, err := r.Accounts.Edit(t.Context(), owner, Everybody, n.login, n.edit)
		said := slices.Contains(changes, "it may send as nobody: all its mail is refused")
		if err != nil || said != n.says {
			t.Errorf("%+v: %q, %v", n, changes, err)
		}
	}
	if _, err := r.Accounts.Add(t.Context(), Actor{Channel: Console, Role: Viewer}, NewAccount{Login: "x"}); !errors.Is(
		err, ErrForbidden) {
		t.Errorf("a viewer: %v", err)
	}
}

// TestSending: what an account may send as, and whose right it needs.
func TestSending(t *testing.T) {
	r := newRig(t)
	c := config.Parse("relay.toml", []byte(sending))
	r.Accounts.Options.Config = func() *config.Config { return c }
	for _, test := range []struct {
		u              auth.User
		senders, right []string
		policy         string
	}{
		{auth.User{Login: "printer"}, nil, nil, ""},
		{auth.User{Login: "printer", Senders: []string{"p@firma.example"}}, []string{"p@firma.example"},
			[]string{"office@firma.example"}, ""},
		{auth.User{Login: "office", Senders: []string{"Office@firma.example"}},
			[]string{"Office@firma.example"}, nil, ""},
		{auth.User{Login: "erp", Groups: []string{"shop"}}, []string{"shop@firma.example"},
			[]string{"office@firma.example"}, "policy 1"},
	} {
		s, err := r.Clients.Sending(t.Context(), owner, test.u)
		rights, err2 := r.Clients.NeedsRight(owner, s.Senders)
		if err != nil || err2 != nil || !slices.EqualFunc(s.Senders, test.senders, strings.EqualFold) ||
			s.Policy != test.policy || !slices.Equal(rights, test.right) {
			t.Errorf("%s: %+v, right %v, %v %v", test.u.Login, s, rights, err, err2)
		}
	}
}

// TestAddedSendersStandBesideItsOwn: whoever is given one more sender may go on sending as the own address, unless that
// is taken out or was not allowed.
func TestAddedSendersStandBesideItsOwn(t *testing.T) {
	r := newRig(t)
	c := config.Parse("relay.toml", []byte(sending+"[[policy]]\n"+
		"groups = [\"desk\"]\nsenders = [\"desk@firma.example\"]\n"))
	r.Accounts.Options.Config = func() *config.Config { return c }
	info, anna := "info@firma.example", "anna@firma.example"
	add := func(senders ...string) AccountEdit { return AccountEdit{Senders: ListEdit{Add: senders}} }
	for _, test := range []struct {
		n    NewAccount
		edit AccountEdit
		want []string
	}{
		{NewAccount{Login: anna}, add(info), []string{anna, info}},
		{NewAccount{Login: anna, Senders: []string{"a@firma.example"}}, add(info), []string{"a@firma.example", info}},
		{NewAccount{Login: anna}, AccountEdit{Senders: ListEdit{Add: []string{info}, Remove: []string{anna}}},
			[]string{info}},
		{NewAccount{Login: anna, Groups: []string{"desk"}}, add(info), []string{info}},
		{NewAccount{Login: "erp", Groups: []string{"shop"}}, add(info), []string{info}},
		{NewAccount{Login: anna}, AccountEdit{Senders: ListEdit{Set: []string{info}}}, []string{info}},
		{NewAccount{Login: anna, Senders: []string{info}}, AccountEdit{Senders: ListEdit{Clear: true}}, nil},
	} {
		if _, err := r.Accounts.Add(t.Context(), owner, test.n); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Accounts.Edit(t.Context(), owner, Everybody, test.n.Login, test.edit); err != nil {
			t.Errorf("%+v %+v: %v", test.n, test.edit, err)
		}
		u, err := r.Accounts.Get(t.Context(), owner, Everybody, test.n.Login)
		if err != nil || !slices.Equal(u.Senders, test.want) {
			t.Errorf("%+v %+v: %v, want %v; %v", test.n, test.edit, u.Senders, test.want, err)
		}
		if err := r.Accounts.Remove(t.Context(), owner, Everybody, test.n.Login); err != nil {
			t.Fatal(err)
		}
	}
}
