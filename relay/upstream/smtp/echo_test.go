package smtp

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// A server that repeats our password, at whatever stage and however it came to it, tells it to nobody.
func TestPasswordsDoNotComeBack(t *testing.T) {
	plain := b64("\x00" + user + "\x00" + password)
	for _, echo := range []string{password, strings.ToUpper(password), b64(password), plain, strings.ToLower(plain),
		plain[:len(plain)-4]} {
		for _, c := range []struct{ verb, reply string }{
			{"AUTH", "535 5.7.8 not %s"}, {"AUTH", "454 4.7.0 %s later"}, {"AUTH", "250 what %s"}, {"AUTH", "334 %s"},
			{"MAIL", "550 5.7.1 %s no"}, {"RCPT", "550-5.1.1 see\n550 5.1.1 %s"}, {"RCPT", "451 4.7.1 %s"},
			{"DATA", "554 5.7.1 %s"}, {fakesmtp.Content, "550 5.7.1 %s"}, {fakesmtp.Content, "250 2.0.0 taken %s"},
			{fakesmtp.Content, "999 %s"},
		} {
			fc := provider()
			fc.Extensions = fakesmtp.Without("CHUNKING")
			fc.Hook = hookOn(c.verb, 0, fakesmtp.Action{Reply: fmt.Sprintf(c.reply, echo)})
			var logged bytes.Buffer
			_, u := start(t, fc, func(cfg *Config) {
				cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			r := send(t, u, message(t))[0]
			told := fmt.Sprintf("%s %v %q %+v %s", r.Reply, r.Err, r.Note, u.States(), &logged)
			wantNoEcho(t, fmt.Sprintf(c.reply, echo), told)

			_, probed := start(t, fc, nil)
			steps := probed.TestSenders(t.Context(), upstream.Trial{Senders: []mail.Address{address(t, user)}})
			wantNoEcho(t, "test: "+fmt.Sprintf(c.reply, echo), fmt.Sprintf("%+v", steps))
		}
	}
}

func wantNoEcho(t *testing.T, name, told string) {
	t.Helper()
	told = strings.ToLower(told)
	inPlain := b64("\x00" + user + "\x00" + password)[28:] // behind the name, which is no secret
	for _, secret := range []string{password, b64(password), inPlain} {
		secret = strings.ToLower(secret)
		for i := 0; i+8 <= len(secret); i++ {
			if strings.Contains(told, secret[i:i+8]) {
				t.Fatalf("%s: %q is told: %s", name, secret[i:i+8], told)
			}
		}
	}
}

// Nor does one that is so short that only the whole response tells it.
func TestShortPasswordsDoNotComeBack(t *testing.T) {
	const short = "ab12x"
	plain := b64("\x00" + user + "\x00" + short)
	for _, c := range []struct{ mechanism, echo, tail string }{
		{"PLAIN", plain, plain[len(plain)-8:]}, {"PLAIN", "AUTH PLAIN " + plain, plain[len(plain)-8:]},
		{"LOGIN", b64(short), b64(short)}, {"PLAIN", short, short},
	} {
		fc := provider()
		fc.Users = map[string]string{user: short}
		fc.Hook = hookOn("AUTH", 0, fakesmtp.Action{Reply: "535 5.7.8 not " + c.echo + " please"})
		if c.mechanism == "LOGIN" { // which has gone by then
			fc.Hook = hookOn("RCPT", 0, fakesmtp.Action{Reply: "550 5.1.1 not " + c.echo + " please"})
		}
		_, u := start(t, fc, func(cfg *Config) { cfg.Password, cfg.Mechanisms = short, []string{c.mechanism} })
		r := send(t, u, message(t))[0]
		if told := fmt.Sprintf("%s %v %q %+v", r.Reply, r.Err, r.Note, u.States()); strings.Contains(told, c.tail) ||
			!strings.Contains(told, "please") {
			t.Errorf("%s %q is told: %s", c.mechanism, c.echo, told)
		}
	}
}
