package outbound

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/upstream/oauth"
)

// What is wrong is named by the key of relay.toml.
func TestCheckTokens(t *testing.T) {
	for _, c := range []struct {
		block config.OAuth
		want  string
	}{
		{config.OAuth{Flow: "client-credentials", ClientID: "1"}, "client_secret: is missing"},
		{config.OAuth{Flow: "device-code", ClientID: "1", TokenURL: "https://login.example.com/token",
			Scopes: []string{"send"}}, "device_url: is missing"},
		{config.OAuth{Flow: "service-account"}, "service_account_file: is missing"},
		{config.OAuth{Flow: "device-code", ClientID: "1", Provider: "google"}, "flow: Google does not give"},
	} {
		err := CheckTokens(config.Upstream{Name: "office", Host: "smtp.example.com", OAuth: &c.block})
		if err == nil || !strings.Contains(err.Error(), "upstream office: oauth: "+c.want) {
			t.Errorf("%+v: %v", c.block, err)
		}
	}
	if err := CheckTokens(config.Upstream{}); err != nil {
		t.Error(err)
	}
}

func TestTokenError(t *testing.T) {
	known := tokenError{&oauth.Error{Class: mail.AccountFault, Code: "AADSTS7000222",
		Cause: "the client secret has expired", Fix: "make a new one",
		Retry: time.Now().Add(time.Hour), Detail: "what the server said"}, "office"}
	if r := known.Reply(); known.Class() != mail.AccountFault ||
		r.String() != "454 4.7.0 no access token for upstream office: the client secret has expired; make a new one "+
			"(AADSTS7000222)" || known.RetryAfter() < 59*time.Minute {
		t.Errorf("%s: %s, %v", known.Class(), r, known.RetryAfter())
	}
	other := tokenError{errors.New("something with a secret"), "office"}
	if r := other.Reply(); other.Class() != mail.BackPressure || strings.Contains(r.String(), "secret") ||
		other.RetryAfter() != 0 {
		t.Errorf("%s: %s, %v", other.Class(), r, other.RetryAfter())
	}
}

func TestOwnIdentity(t *testing.T) {
	at := func(s string) mail.Address {
		a, err := mail.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	anna, office := at("Anna@Example.com"), at("Office@example.com")
	for name, c := range map[string]struct {
		identity string
		m        queue.Message
		want     string
	}{
		"sender": {config.IdentitySender,
			queue.Message{Login: "anna", Envelope: mail.Envelope{From: anna}}, "anna@example.com"},
		"author for a null one": {config.IdentitySender, queue.Message{Login: "anna", Author: anna},
			"anna@example.com"},
		"a report of ours": {config.IdentitySender, queue.Message{Author: anna}, ""},
		"nobody":           {config.IdentitySender, queue.Message{Login: "anna"}, ""},
		"the username in other case": {config.IdentitySender,
			queue.Message{Login: "o", Envelope: mail.Envelope{From: office}}, ""},
		"the sign of kelvin, which Unicode has as a capital k": {config.IdentitySender, queue.Message{Login: "o",
			Envelope: mail.Envelope{From: at("\u212aim@example.com")}}, "\u212aim@example.com"},
		"username": {config.IdentityUsername,
			queue.Message{Login: "anna", Envelope: mail.Envelope{From: anna}}, ""},
	} {
		up := &Upstream{Config: config.Upstream{Username: "office@example.com",
			OAuth: &config.OAuth{Identity: c.identity}}, withoutMailbox: newWithoutMailbox()}
		if got := up.identityFor(&c.m); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		up.withoutMailbox.add(c.want, time.Now())
		if got := up.identityFor(&c.m); got != "" {
			t.Errorf("%s, no mailbox: %q", name, got)
		}
	}
}

func TestSendersWithoutMailbox(t *testing.T) {
	h, now := newWithoutMailbox(), time.Now()
	if !h.add("a", now) || h.add("a", now.Add(time.Hour)) || !h.has("a", now.Add(senderLife-1)) {
		t.Error("not remembered")
	}
	if h.has("a", now.Add(senderLife)) || !h.add("a", now.Add(senderLife)) {
		t.Error("remembered for longer than a day")
	}
	h.remove("a")
	if h.has("a", now) {
		t.Error("not forgotten")
	}
	for i := range maxSenders + 10 {
		h.add(strings.Repeat("x", i%7)+string(rune(i)), now)
	}
	if n := h.known.Len(); n > maxSenders {
		t.Errorf("%d are remembered", n)
	}
}
