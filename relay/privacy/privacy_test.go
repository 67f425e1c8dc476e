package privacy

import (
	"strings"
	"testing"

	"postern/mail"
	"postern/relay/trace"
)

var (
	hashing = Rules{Recipients: Hash, Clients: Hash, Key: []byte("key")}
	cutting = Rules{Recipients: Cut, Clients: Cut}
)

func TestRecipient(t *testing.T) {
	bob := hashing.Recipient("bob@example.net")
	if !strings.HasSuffix(bob, "@example.net") || !isHashed(strings.TrimSuffix(bob, "@example.net")) {
		t.Error(bob)
	}
	other := Rules{Recipients: Hash, Key: []byte("other")}
	for name, test := range map[string]struct{ got, want string }{
		"case":        {hashing.Recipient("Bob@Example.NET"), bob},
		"again":       {hashing.Recipient(bob), bob},
		"cut":         {cutting.Recipient("bob@example.net"), "@example.net"},
		"hashed, cut": {cutting.Recipient(bob), "@example.net"},
		"cut, hashed": {hashing.Recipient("@example.net"), "@example.net"},
		"quoted":      {cutting.Recipient(`"a@b"@example.net`), "@example.net"},
		"no address":  {hashing.Recipient("nobody"), "nobody"},
		"kept":        {(&Rules{Recipients: Keep}).Recipient("bob@example.net"), "bob@example.net"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", name, test.got, test.want)
		}
	}
	if other.Recipient("bob@example.net") == bob || hashing.Recipient("ben@example.net") == bob {
		t.Error("two that are the same")
	}
}

func TestClient(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.77": "192.0.2.0/24", "::ffff:192.0.2.77": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48",
		"2001:db8:1:2::/64": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48", "192.0.2.0/24": "192.0.2.0/24", "": "",
		"localhost": "localhost",
	} {
		if got := cutting.Client(client); got != want {
			t.Errorf("%q is cut to %q, want %q", client, got, want)
		}
		if got := hashing.Client(client); isHashed(got) == (got == client) || hashing.Client(got) != got {
			t.Errorf("%q is hashed to %q", client, got)
		}
	}
}

func TestApply(t *testing.T) {
	full := trace.Event{From: "anna@example.com", To: "Bob@example.net", Login: "anna", Client: "192.0.2.7",
		MessageID: "<1@example.com>",
		Reply: mail.R(550, "5.1.1", "<bob@example.net>: no such user; rfc822;bob+x@example.net. Ask "+
			"anna@example.com of 192.0.2.70, <1@example.com>."),
		Detail: "192.0.2.7: bob@example.net, carol@example.org"}
	e := full
	if !cutting.Apply(&e) || e.To != "@example.net" || e.Client != "192.0.2.0/24" ||
		e.Reply.Text != "<@example.net>: no such user; rfc822;@example.net. Ask anna@example.com of 192.0.2.70, "+
			"<1@example.com>." || e.Detail != "192.0.2.0/24: @example.net, @example.org" {
		t.Errorf("%+v", e)
	}
	if cutting.Apply(&e) {
		t.Errorf("cut again: %+v", e)
	}
	e = full
	if !hashing.Apply(&e) || hashing.Apply(&e) {
		t.Errorf("%+v", e)
	}
	for _, text := range []string{e.To, e.Client, e.Reply.Text, e.Detail} {
		if strings.Contains(strings.ToLower(text), "bob") || strings.Contains(text, "carol") {
			t.Errorf("%q", text)
		}
	}
	if !strings.Contains(e.Reply.Text, hashing.Recipient("bob@example.net")) {
		t.Errorf("%q", e.Reply.Text)
	}
	many := trace.Event{To: "bob@example.net and 2 more"}
	if cutting.Apply(&many); many.To != "@example.net and 2 more" {
		t.Error(many.To)
	}
	e = full
	if (&Rules{}).Apply(&e) || e != full || !(&Rules{Recipients: Keep}).Keeps() || hashing.Keeps() {
		t.Error("what is to be kept is not")
	}
}

// Whatever a provider says, nothing that is to go stays, and to do it twice changes nothing.
func FuzzApply(f *testing.F) {
	f.Add("bob@example.net", "550 <bob@example.net> no", "192.0.2.7")
	f.Add(`"b@c"@example.net`, "x@", "::1")
	f.Fuzz(func(t *testing.T, to, text, client string) {
		e := trace.Event{To: to, Client: client, Reply: mail.R(550, "", "%s", text), Detail: text}
		for _, r := range []Rules{hashing, cutting} {
			e := e
			r.Apply(&e)
			again := e
			if r.Apply(&again) {
				t.Fatalf("%+v, then %+v", e, again)
			}
		}
	})
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"to ANNA@example.com.":                 "to X.",
		"hanna@example.com":                    "hanna@example.com",
		"anna@example.com.invalid":             "anna@example.com.invalid",
		"<anna@example.com>, anna@example.com": "<X>, X",
	} {
		if got, found := Redact(text, "anna@example.com", "X"); got != want || found != (text != want) {
			t.Errorf("%q: %q", text, got)
		}
	}
}
