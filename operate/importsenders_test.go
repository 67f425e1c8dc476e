package operate_test

import (
	"errors"
	"slices"
	"testing"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/store"
)

// TestImportRefusesWhatCannotSend: a table is refused as `user add` would refuse its new accounts, with their lines and
// a sender for each, unless it is wanted; what exists already is left to whoever changes it.
func TestImportRefusesWhatCannotSend(t *testing.T) {
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := config.Parse("relay.toml", []byte("hostname = \"relay.firma.example\"\n[[listener]]\nname = \"submission\"\n"+
		"address = \"127.0.0.1:0\"\n"))
	o := operate.New(operate.Options{Config: func() *config.Config { return c }, Store: s})
	by := operate.Actor{Name: "anna", Channel: operate.CommandLine}
	take := func(table string, options operate.Import) []string {
		t.Helper()
		done, err := o.Accounts.Import(t.Context(), by, []byte(table), options)
		if wrong, is := errors.AsType[*operate.TableError](err); is {
			return wrong.Lines
		}
		if err != nil || done.Added+done.Changed == 0 {
			t.Fatalf("%+v, %v", done, err)
		}
		return nil
	}
	table := "login,senders,kind\nanna@firma.example,,user\nscanner,,device\nfax,fax@firma.example,device\n" +
		"plotter,,device\n"
	want := []string{"3: login scanner could send as nobody: give it a sender, such as scanner@firma.example",
		"5: login plotter could send as nobody: give it a sender, such as plotter@firma.example"}
	for _, dry := range []bool{true, false} {
		if got := take(table, operate.Import{DryRun: dry}); !slices.Equal(got, want) {
			t.Errorf("dry %v: %q, want %q", dry, got, want)
		}
	}
	if users, err := s.Users(t.Context()); err != nil || len(users) != 0 {
		t.Errorf("%d are there, %v", len(users), err)
	}
	if got := take(table, operate.Import{WithoutSender: true}); got != nil {
		t.Errorf("%q", got)
	}
	if got := take("login,note\nscanner,second floor\n", operate.Import{Update: true}); got != nil {
		t.Errorf("an account that exists: %q", got)
	}
}
