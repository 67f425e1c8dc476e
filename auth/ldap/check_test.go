package ldap

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"postern/mail"
)

var testClient = netip.MustParseAddr("192.0.2.1")

func replyText(err error) string {
	r, _ := mail.ReplyFor(err)
	return r.String()
}

func TestCheck(t *testing.T) {
	good := Options{URLs: []string{"ldaps://dc1.example.com", "ldap://dc2.example.com:1389"},
		BaseDN: "dc=example,dc=com", BindDN: "cn=relay,dc=example,dc=com", BindPassword: "x"}
	if err := Check(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"urls":          func(o *Options) { o.URLs = nil },
		"urls ":         func(o *Options) { o.URLs = []string{"http://x.example"} },
		"urls  ":        func(o *Options) { o.URLs = []string{"ldap://user:pw@x.example"} },
		"urls   ":       func(o *Options) { o.URLs = []string{"ldap://x.example/dc=x??sub"} },
		"directory":     func(o *Options) { o.Directory = "novell" },
		"groups":        func(o *Options) { o.Groups = "all" },
		"base_dn":       func(o *Options) { o.BaseDN = "" },
		"base_dn ":      func(o *Options) { o.BaseDN = "example.com" },
		"group_base":    func(o *Options) { o.GroupBase = "groups" },
		"bind_dn":       func(o *Options) { o.BindDN, o.BindPassword = "", "" },
		"bind_password": func(o *Options) { o.BindPassword = "" },
		"bind_password ": func(o *Options) {
			o.BindDN, o.BindTemplate = "", "uid={login},dc=example"
		},
		"bind_template":     func(o *Options) { o.BindTemplate = "uid=anna,dc=example" },
		"bind_template ":    func(o *Options) { o.BindTemplate = "uid={login},,=" },
		"login_attribute":   func(o *Options) { o.LoginAttribute = "uid)(x=y" },
		"sender_attributes": func(o *Options) { o.SenderAttributes = []string{"mail", "*"} },
		"user_filter":       func(o *Options) { o.UserFilter = "(uid=anna)" },
		"user_filter ":      func(o *Options) { o.UserFilter = "(uid={login}" },
	} {
		o := good
		change(&o)
		err := Check(o)
		bad, ok := errors.AsType[*mail.KeyError](err)
		if !ok || bad.Key != strings.TrimSpace(want) {
			t.Errorf("%s: %v", want, err)
		}
		if _, made := New(o); made == nil {
			t.Errorf("%s: New takes it", want)
		}
	}
}

func TestSenderOf(t *testing.T) {
	for in, want := range map[string]string{
		"anna@example.com": "anna@example.com", "SMTP:anna@example.com": "anna@example.com first",
		"smtp:a.b@example.com": "a.b@example.com", "Smtp:a@example.com": "a@example.com",
		"x500:/o=x": "", "sip:anna@example.com": "", "*@example.com": "", "@staff": "", "": "", "smtp:": "",
		"{login}@example.com": "", "!anna@example.com": "", `"*"@example.com`: "", "anna": "", "<>": "",
		"a@b.example, c@d.example": "", "smtp:smtp:a@example.com": "", "a@ex\r\nample.com": "",
	} {
		a, first, ok := senderOf(in)
		got := a
		if first {
			got += " first"
		}
		if got != want || ok != (want != "") {
			t.Errorf("senderOf(%q) = %q, %v, %v", in, a, first, ok)
		}
	}
}

func FuzzSenderOf(f *testing.F) {
	for _, s := range []string{"SMTP:anna@example.com", "*@example.com", `"a b"@example.com`, "@staff",
		"{login}@x.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		a, _, ok := senderOf(v)
		if !ok {
			return
		}
		if strings.ContainsAny(a, "*{}!") || strings.HasPrefix(a, "@") || mail.Printable(a) != a {
			t.Errorf("%q became %q", v, a)
		}
	})
}
