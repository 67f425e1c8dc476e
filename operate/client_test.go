package operate

import (
	"errors"
	"strings"
	"testing"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/store"
)

const clientSettings = `hostname = "relay.example.com"
[autoconfig]
domains = ["example.com"]
[autoconfig.incoming]
host = "imap.example.com"
`

// Who may see accounts may see what they type; what keeps an account from working is said.
func TestClients(t *testing.T) {
	c := config.Parse("relay.toml", []byte(clientSettings))
	c.DataDir = t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Dir: c.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ops := New(Options{Config: func() *config.Config { return c }, Store: s})
	machine := Actor{Channel: CommandLine}
	for _, n := range []NewAccount{{Login: "anna@example.com"},
		{Login: "scanner", Device: true, Senders: []string{"scanner@example.com"}}} {
		if _, err := ops.Accounts.Add(t.Context(), machine, n); err != nil {
			t.Fatal(err)
		}
	}
	viewer := Actor{Name: "v", Channel: Console, Role: Viewer}
	card, err := ops.Clients.Card(t.Context(), viewer, "ANNA@example.com")
	if err != nil || card.Login != "anna@example.com" || len(card.Records) == 0 || len(card.Outgoing) != 2 {
		t.Errorf("%+v, %v", card, err)
	}
	if _, err := ops.Clients.Card(t.Context(), Actor{Channel: Console}, "anna@example.com"); !errors.Is(err,
		ErrForbidden) {
		t.Errorf("nobody: %v", err)
	}
	_, err = ops.Clients.Card(t.Context(), viewer, "bob@example.com")
	if kind, ok := KindOf(err); !ok || kind != NotFound {
		t.Errorf("an unknown login: %v", err)
	}
	p, err := ops.Clients.AppleProfile(t.Context(), viewer, "anna@example.com")
	if err != nil || p.Signed || p.Why == "" || !strings.Contains(string(p.Document), "anna@example.com") {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = ops.Accounts.Add(t.Context(), machine, NewAccount{Login: "mute", WithoutSender: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ops.Clients.AppleProfile(t.Context(), viewer, "mute")
	if kind, ok := KindOf(err); !ok || kind != Invalid {
		t.Errorf("a login without an address: %v", err)
	}
	c.Autoconfig.Incoming.Authentication = config.ByOAuth2
	_, err = ops.Clients.AppleProfile(t.Context(), viewer, "anna@example.com")
	if kind, ok := KindOf(err); !ok || kind != Conflict || !strings.Contains(err.Error(), "OAuth 2.0") {
		t.Errorf("a mailbox by OAuth: %v", err)
	}
	// Where others know passwords too, a login need not be here.
	c.Auth.Sources = append(c.Auth.Sources, config.AuthSource{Type: "other"})
	card, err = ops.Clients.Card(t.Context(), viewer, "bob@example.com")
	if err != nil || !strings.Contains(strings.Join(card.Notes, "\n"), "not in the store") {
		t.Errorf("%+v, %v", card, err)
	}
}

func TestNotesOfAccount(t *testing.T) {
	if notes := notesOfAccount(auth.User{Login: "a", Locked: true, LockReason: "gone\x1b[0m"}, true); len(notes) != 1 ||
		strings.Contains(notes[0], "\x1b") {
		t.Errorf("%q", notes)
	}
}
