package logline

import (
	"errors"
	"slices"
	"testing"

	"postern/mail"
)

func TestPairs(t *testing.T) {
	got := Pairs("a", "", "b", "x", "c", nil, "d", 0, "e", error(nil), "f", false)
	if want := []any{"b", "x", "d", 0, "f", false}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Pairs(); len(got) != 0 {
		t.Error(got)
	}
}

func TestBeside(t *testing.T) {
	reply := mail.R(535, "5.7.8", "not accepted")
	for text, want := range map[string]string{
		"": "", "wrong password": "wrong password", "535 5.7.8 not accepted": "", "not accepted": "", "accepted": "",
		"535 5.7.8 not accepted: wrong password": "wrong password", "PLAIN: not accepted": "PLAIN",
		"not accepted; twice": "twice",
	} {
		if got := Beside(reply, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if got := Beside(mail.Reply{}, text); got != text {
			t.Errorf("without a reply %q became %q", text, got)
		}
	}
	if Error(reply, nil) != "" || Error(reply, mail.Refuse(reply, errors.New("locked"))) != "locked" {
		t.Error("errors")
	}
}
