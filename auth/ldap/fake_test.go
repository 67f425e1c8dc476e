package ldap

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/auth/authtest"
	"postern/internal/testkit"
)

// fake is an LDAP server that answers as Active Directory does, or as nobody should.
type fake struct {
	t      *testing.T
	ca     *testkit.CA
	url    string
	mu     sync.Mutex                                    // guards what follows
	ops    []string                                      // what was asked
	answer func(op string, name, secret string) [][]byte // nil: as Active Directory; an empty list: nothing
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, ca: testkit.NewCA(t)}
	cert := f.ca.Leaf(testkit.LeafOptions{})
	pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	f.url = "ldaps://" + l.Addr().String()
	var conns sync.WaitGroup
	t.Cleanup(func() { l.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go f.serve(c)
		}
	})
	return f
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	for {
		p, err := ber.ReadPacket(c)
		if err != nil || len(p.Children) < 2 {
			return
		}
		id, op := p.Children[0].Value.(int64), p.Children[1]
		var what, name, secret string
		switch op.Tag {
		case ldap.ApplicationBindRequest:
			what, name, secret = "bind", op.Children[1].Data.String(), op.Children[2].Data.String()
		case ldap.ApplicationSearchRequest:
			what, name = "search", op.Children[0].Data.String()
			secret, _ = ldap.DecompileFilter(op.Children[6])
		default:
			return
		}
		f.mu.Lock()
		f.ops = append(f.ops, what)
		answer := f.answer
		f.mu.Unlock()
		var list [][]byte
		if answer != nil {
			list = answer(what, name, secret)
		}
		if list == nil {
			list = activeDirectory(what, name, secret)
		}
		for _, b := range list {
			if _, err := c.Write(message(id, b)); err != nil {
				return
			}
		}
	}
}

// message puts an operation into an envelope.
func message(id int64, op []byte) []byte {
	p := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	inner, err := ber.DecodePacketErr(op)
	if err != nil {
		return op // sent as it is
	}
	p.AppendChild(inner)
	return p.Bytes()
}

func result(tag ber.Tag, code int64, diagnostic string) []byte {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, diagnostic, ""))
	return p.Bytes()
}

func bound(code int64, diagnostic string) [][]byte {
	return [][]byte{result(ldap.ApplicationBindResponse, code, diagnostic)}
}

func entry(dn string, attributes map[string][]string) []byte {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, dn, ""))
	list := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	for name, values := range attributes {
		a := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
		a.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, name, ""))
		set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range values {
			set.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, v, ""))
		}
		a.AppendChild(set)
		list.AppendChild(a)
	}
	p.AppendChild(list)
	return p.Bytes()
}

func reference(url string) []byte {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, url, ""))
	return p.Bytes()
}

func searched(entries ...[]byte) [][]byte {
	return append(entries, result(ldap.ApplicationSearchResultDone, 0, ""))
}

// subCodes are the accounts of the fake, and with which sub-code it refuses them if the password is right.
var subCodes = map[string]string{"anna": "", "hours": "530", "station": "531", "old": "532", "off": "533",
	"tokens": "568", "ended": "701", "change": "773", "locked": "775"}

const (
	domain  = "DC=corp,DC=example,DC=com"
	relayDN = "CN=postern,OU=Services," + domain
)

func adRefusal(data string) [][]byte {
	return bound(ldap.LDAPResultInvalidCredentials, "80090308: LdapErr: DSID-0C090446, comment: "+
		"AcceptSecurityContext error, data "+data+", v4563\x00")
}

// activeDirectory answers like one.
func activeDirectory(what, name, secret string) [][]byte {
	switch {
	case what == "bind" && name == relayDN && secret == "relay password":
		return bound(0, "")
	case what == "bind":
		login := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "CN="), ",OU=Staff,"+domain))
		login = strings.TrimSuffix(login, "@corp.example.com")
		code, known := subCodes[login]
		switch {
		case !known:
			return adRefusal("525")
		case login == "locked":
			return adRefusal("775")
		case secret != "right":
			return adRefusal("52e")
		case code != "":
			return adRefusal(code)
		}
		return bound(0, "")
	case strings.Contains(secret, "1.2.840.113556.1.4.1941:="):
		return searched(entry("CN=Sales,"+domain, map[string][]string{"cn": {"Sales"}}),
			entry("CN=Staff,"+domain, map[string][]string{"cn": {"Staff"}}),
			reference("ldap://ForestDnsZones.corp.example.com/DC=ForestDnsZones"))
	case strings.Contains(secret, "(objectCategory=person)"):
		for login := range subCodes {
			if strings.Contains(secret, "(sAMAccountName="+login+")") ||
				strings.Contains(secret, "(userPrincipalName="+login+"@corp.example.com)") {
				return searched(adEntry(login), reference("ldap://elsewhere.example.com/DC=elsewhere"))
			}
		}
	}
	return searched()
}

func adEntry(login string) []byte {
	flags, expires := "512", "9223372036854775807"
	switch login {
	case "off":
		flags = "514"
	case "ended":
		expires = "132000000000000000"
	}
	return entry("CN="+login+",OU=Staff,"+domain, map[string][]string{
		"userPrincipalName": {login + "@Corp.example.com"}, "userAccountControl": {flags}, "accountExpires": {expires},
		"mail": {login + "@example.com"}, "proxyAddresses": {"smtp:" + login + ".alias@example.com",
			"SMTP:" + login + ".primary@example.com", "X500:/o=Example/cn=x", "sip:" + login + "@example.com",
			"smtp:*@example.com", "smtp:" + login + "@example.com"}})
}

func (f *fake) options() Options {
	return Options{Name: "ad", URLs: []string{f.url}, RootCAs: roots(f.ca), Directory: ActiveDirectory, BaseDN: domain,
		BindDN: relayDN, BindPassword: "relay password", Timeout: time.Second}
}

func TestActiveDirectory(t *testing.T) {
	f := newFake(t)
	s := source(t, f.options())
	authtest.RunSource(t, s, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "locked",
		LockedPassword: "right"})
	authtest.RunSource(t, s, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "off",
		LockedPassword: "right", LockShows: true})
	for _, login := range []string{"anna", "anna@corp.example.com"} {
		id, err := s.Verify(t.Context(), login, "right")
		want := auth.Identity{Login: "anna@corp.example.com", Groups: []string{"Sales", "Staff"},
			Senders: []string{"anna.primary@example.com", "anna@example.com", "anna.alias@example.com"}}
		if err != nil || !reflect.DeepEqual(id, want) {
			t.Errorf("%+v, %v", id, err)
		}
	}
	o := f.options()
	o.BindDN, o.BindPassword, o.BindTemplate, o.BaseDN = "", "", "{login}@corp.example.com", domain
	template := source(t, o)
	authtest.RunSource(t, template, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "locked",
		LockedPassword: "right"})
	for _, login := range []string{"anna", "anna@corp.example.com"} {
		if id, err := template.Verify(t.Context(), login, "right"); err != nil || len(id.Groups) != 2 ||
			id.Login != "anna@corp.example.com" {
			t.Errorf("by template: %+v, %v", id, err)
		}
	}
	for _, login := range []string{"anna@other.example.com", `corp\anna`, "anna/x", "@corp.example.com"} {
		if _, err := template.Verify(t.Context(), login, "right"); !errors.Is(err, auth.ErrUnknownLogin) {
			t.Errorf("%q by template: %v", login, err)
		}
	}
	if _, err := template.Lookup(t.Context(), "anna"); !errors.Is(err, auth.ErrNoLookup) {
		t.Errorf("Lookup by template: %v", err)
	}
}

// TestSubCodes: the reason is in the error, for log and trace, and not in what the client hears.
func TestSubCodes(t *testing.T) {
	f := newFake(t)
	s := source(t, f.options())
	texts := map[string]bool{}
	a := auth.New(auth.Options{Sources: []auth.Source{s}})
	var mu sync.Mutex // guards texts
	var wait sync.WaitGroup
	hear := func(login, password string) { // refusals take their time
		wait.Go(func() {
			_, err := a.Authenticate(t.Context(), login, password, testClient)
			mu.Lock()
			defer mu.Unlock()
			texts[replyText(err)] = true
		})
	}
	for login, code := range subCodes {
		if code == "" {
			continue
		}
		_, err := s.Verify(t.Context(), login, "right")
		if !errors.Is(err, auth.ErrLocked) || !strings.Contains(err.Error(), reasons[code]) ||
			!strings.Contains(err.Error(), "data "+code) {
			t.Errorf("%s: %v", login, err)
		}
		hear(login, "right")
		hear(login, "wrong")
	}
	hear("nobody", "right")
	hear("anna", "wrong")
	wait.Wait()
	if len(texts) != 1 {
		t.Errorf("clients hear %v", texts)
	}
	for login, want := range map[string]string{"off": "disabled", "ended": "expired on 2019-04-17"} {
		if _, err := s.Lookup(t.Context(), login); !errors.Is(err, auth.ErrLocked) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("Lookup(%s): %v", login, err)
		}
	}
}

// TestWorkTellsNothing: an unknown login costs a search and a bind, like a wrong password and a locked account.
func TestWorkTellsNothing(t *testing.T) {
	f := newFake(t)
	s := source(t, f.options())
	work := func(login, password string) string {
		f.mu.Lock()
		f.ops = nil
		f.mu.Unlock()
		if _, err := s.Verify(t.Context(), login, password); err == nil {
			t.Fatal("let in")
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return strings.Join(f.ops, " ")
	}
	work("anna", "wrong") // the connections are there now
	for _, login := range []string{"anna", "nobody", "off", "locked", "*", "old"} {
		for _, password := range []string{"wrong", "right"} {
			if login == "anna" && password == "right" {
				continue
			}
			if got := work(login, password); got != "search bind" {
				t.Errorf("%s, %s password: %s", login, password, got)
			}
		}
	}
}

// TestServersThatMisbehave: none of it is a wrong password, takes the machine down, or sends a password elsewhere.
func TestServersThatMisbehave(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	huge := entry("CN=x,"+domain, map[string][]string{"mail": {big, big, big, big, big}})
	many := make([][]byte, 3000)
	for i := range many {
		many[i] = entry(fmt.Sprintf("CN=%d,%s", i, domain), map[string][]string{"cn": {fmt.Sprint(i)}})
	}
	for name, c := range map[string]struct {
		op   string
		says [][]byte
		want string
	}{
		"a referral for a search": {"search", [][]byte{result(ldap.ApplicationSearchResultDone, 10, "ref")},
			"refers to another server"},
		"a referral for a bind": {"user", bound(10, "ref"), "cannot decide"},
		"a rule about a bind":   {"user", bound(53, "no"), "cannot decide"},
		"busy":                  {"user", bound(51, ""), "Busy"},
		"unavailable": {"search", [][]byte{result(ldap.ApplicationSearchResultDone, 52, "")},
			"Unavailable"},
		"an entry that is huge":  {"search", searched(huge), ""},
		"entries without end":    {"search", append(many, searched()...), "more than one"},
		"groups without end":     {"groups", append(many, searched()...), "more than 1000 groups"},
		"no LDAP":                {"search", [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n\r\n")}, ""},
		"a length without limit": {"search", [][]byte{{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02}}, ""},
		"nothing":                {"search", [][]byte{}, ""},
		"not allowed": {"search", [][]byte{result(ldap.ApplicationSearchResultDone, 50, "")},
			"may not read"},
		"control characters": {"user", bound(1, "\x1b[2J\r\nfake log line"), `operations`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answer = func(what, dn, filter string) [][]byte {
				kind := what
				switch {
				case what == "bind" && strings.Contains(dn, "OU=Staff"):
					kind = "user"
				case what == "search" && strings.Contains(filter, "1941"):
					kind = "groups"
				}
				if kind == c.op {
					return c.says
				}
				return nil
			}
			o := f.options()
			if name == "nothing" {
				o.Timeout = 200 * time.Millisecond
			}
			id, err := source(t, o).Verify(t.Context(), "anna", "right")
			if err == nil || errors.Is(err, auth.ErrUnknownLogin) ||
				errors.Is(err, auth.ErrWrongPassword) && name != "entries without end" {
				t.Fatalf("%+v, %v", id, err)
			}
			if !strings.Contains(err.Error(), c.want) && !strings.Contains(err.Error(), "Operations") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if strings.ContainsAny(err.Error(), "\x1b\r") {
				t.Errorf("the error has controls: %q", err)
			}
		})
	}
}

// TestPlainIsRefused: a server without StartTLS never sees a password.
func TestPlainIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var seen bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := io.TeeReader(c, &seen)
		for {
			p, err := ber.ReadPacket(in)
			if err != nil {
				return
			}
			c.Write(message(p.Children[0].Value.(int64), result(ldap.ApplicationExtendedResponse, 2, "no TLS here")))
		}
	}()
	o := newFake(t).options()
	o.URLs = []string{"ldap://" + l.Addr().String()}
	_, err = source(t, o).Verify(t.Context(), "anna", "right")
	l.Close()
	<-done
	if err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("%v", err)
	}
	if bytes.Contains(seen.Bytes(), []byte("password")) || bytes.Contains(seen.Bytes(), []byte("anna")) {
		t.Errorf("it saw %q", seen.Bytes())
	}
}
