package smtp

import (
	"context"
	"errors"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// summary is the steps of name mail and auth, one in each line.
func summary(steps []upstream.Step) string {
	var lines []string
	for _, s := range steps {
		if s.Name != "mail" && s.Name != "auth" && s.Name != "token" {
			continue
		}
		line := s.Name + " " + s.Identity + " " + s.Sender
		if !s.OK {
			line += " " + s.Reply.String()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func addresses(t *testing.T, texts ...string) (all []mail.Address) {
	for _, s := range texts {
		all = append(all, address(t, s))
	}
	return all
}

func TestSendersAreAskedFor(t *testing.T) {
	fc := provider()
	var verbs []string
	fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
		verbs = append(verbs, verb)
		if strings.Contains(line, "boss@") {
			return fakesmtp.Action{Reply: "550 5.7.60 SMTP; Client does not have permissions to send as this sender"}
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	got := summary(u.TestSenders(t.Context(), upstream.Trial{Senders: addresses(t, "a@example.com", "boss@example.com",
		"b@example.com")}))
	want := `auth relay@example.com 
mail relay@example.com a@example.com
mail relay@example.com boss@example.com 550 5.7.60 SMTP; Client does not have permissions to send as this sender
mail relay@example.com b@example.com`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join(verbs, " "); !strings.HasSuffix(got, "MAIL RSET MAIL RSET MAIL RSET QUIT") ||
		strings.Contains(got, "RCPT") || strings.Contains(got, "DATA") {
		t.Errorf("commands: %s", got)
	}
	if n := len(u.conns); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestTestEndsWithTheConnection(t *testing.T) {
	fc := provider()
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "MAIL" {
			return fakesmtp.Action{Reply: "421 4.3.2 closing"}
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	steps := u.TestSenders(t.Context(), upstream.Trial{Senders: addresses(t, "a@example.com", "b@example.com")})
	if last := steps[len(steps)-1]; last.OK || last.Sender != "a@example.com" || last.Reply.Code != 421 || last.Ours {
		t.Errorf("the last step: %+v", last)
	}
}

// A sender whose login is refused has its mail sent as username, so that is what is tried.
func TestSendersLogInAsThemselves(t *testing.T) {
	_, u := start(t, provider(), func(c *Config) {
		c.Token = func(_ context.Context, identity string) (string, error) {
			return "", errors.New("none for " + identity)
		}
	})
	got := u.TestSenders(t.Context(), upstream.Trial{Senders: addresses(t, "A@example.com"), AsThemselves: true})
	if s := summary(got); s != "token relay@example.com  454 4.7.0 there is no access token now\ntoken "+
		"a@example.com A@example.com 454 4.7.0 there is no access token now" {
		t.Errorf("got\n%s", s)
	}
	if !got[len(got)-1].Ours {
		t.Error("a reply of ours is taken for the upstream's")
	}
}
