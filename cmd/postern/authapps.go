package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"postern/auth"
	"postern/mail"
)

// appTrial is what a trial of a login says of app passwords.
type appTrial struct {
	Count int    `json:"app_passwords"`          // that the login has, expired ones too
	Name  string `json:"app_password,omitempty"` // of the one that was offered
	Good  bool   `json:"app_password_good,omitempty"`
	Why   string `json:"app_password_refused,omitempty"`
}

// lookAtApps says how many app passwords a login has, and whether offered is one of them; "": none is offered.
func lookAtApps(ctx context.Context, s store, login, offered string, now time.Time) (t appTrial, err error) {
	all, err := s.AppPasswords(ctx, login)
	if t.Count = len(all); err != nil || offered == "" {
		return t, err
	}
	pepper, err := s.Secret(ctx, auth.PepperName, auth.PepperSize)
	if err != nil {
		return t, err
	}
	_, k, err := s.AppPassword(ctx, auth.HashGenerated(pepper, offered))
	if errors.Is(err, auth.ErrUnknownLogin) || err == nil && k.Login != login {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	t.Name = k.Name
	_, err = s.LoginLock(ctx, login)
	switch {
	case err == nil:
		t.Why = "the login is locked"
	case !errors.Is(err, auth.ErrUnknownLogin):
		return t, err
	case !now.Before(k.Expires):
		t.Why = "it expired on " + k.Expires.Local().Format(time.DateOnly)
	default:
		t.Good = true
	}
	return t, nil
}

func (t appTrial) write(w io.Writer) {
	switch {
	case t.Good:
		fmt.Fprintf(w, "\nThe password is the app password %s of this login, which is tried before any source. It is "+
			"good as long as the person is.\n", mail.Printable(t.Name))
	case t.Name != "":
		fmt.Fprintf(w, "\nThe password is the app password %s of this login, and refused: %s.\n",
			mail.Printable(t.Name), t.Why)
	case t.Count > 0:
		fmt.Fprintf(w, "\nThe login has %s beside: postern app-password list\n", plural(int64(t.Count), "app password"))
	}
}
