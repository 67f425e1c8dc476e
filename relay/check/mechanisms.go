package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"postern/auth"
	"postern/auth/passwdfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/store"
)

// someLogins is how many logins a warning names.
const someLogins = 5

// scramLogins warns of logins of the store that have no keys for SCRAM while a listener offers it.
func scramLogins(ctx context.Context, c *config.Config, s *store.Store) []config.Problem {
	if len(c.OfferedAt(auth.ScramSHA256)) == 0 {
		return nil
	}
	with, err := s.WithScram(ctx)
	return keyless(ctx, c, s, with, err, func(auth.User) bool { return true }, "logins without keys for SCRAM: %s; "+
		"programs that choose it get 535 for them. Their next login with PLAIN or LOGIN makes the keys, and so does: "+
		"postern user password LOGIN")
}

// cramDevices warns of devices that have no keys for CRAM-MD5 while a listener has it.
func cramDevices(ctx context.Context, c *config.Config, s *store.Store) []config.Problem {
	if len(c.OfferedAt(auth.CramMD5)) == 0 {
		return nil
	}
	with, err := s.WithCram(ctx)
	return keyless(ctx, c, s, with, err, func(u auth.User) bool { return u.Device }, "devices without keys for "+
		"CRAM-MD5: %s; it is refused them with 535. postern device password LOGIN makes the keys, and so does their "+
		"next login with PLAIN or LOGIN if their password is a generated one")
}

// keyless names the logins that are not among those with keys, in the %s of a sentence. err is that of reading with.
func keyless(ctx context.Context, c *config.Config, s *store.Store, with map[string]bool, err error,
	among func(auth.User) bool, sentence string) []config.Problem {
	users, err2 := s.Users(ctx)
	if err = cmp.Or(err, err2); err != nil {
		return []config.Problem{c.Problem("auth.mechanisms", "which logins have keys cannot be read: %s", err)}
	}
	var without []string
	for _, u := range users {
		if !u.Locked && !with[u.Login] && among(u) {
			without = append(without, u.Login)
		}
	}
	if len(without) == 0 {
		return nil
	}
	return []config.Problem{c.Problem("auth.mechanisms", sentence, namedSome(without))}
}

// unwiseCram says what CRAM-MD5 does and does not do.
func unwiseCram(c *config.Config) []config.Problem {
	at := c.OfferedAt(auth.CramMD5)
	if len(at) == 0 {
		return nil
	}
	return []config.Problem{c.Problem("auth.mechanisms", "CRAM-MD5 is on at %s, for devices that know nothing better: "+
		"it keeps a password from who listens without TLS, and does not encrypt, does not prove the server, and lets "+
		"who listened try passwords fast. TLS protects PLAIN better. Where a device has keys, smtplib and PHPMailer "+
		"choose it before PLAIN for people too, whom it refuses; PHPMailer then stops. Give such devices a listener "+
		"of their own", namedSome(at))}
}

// namedSome names the first of some logins.
func namedSome(logins []string) string {
	text := mail.Printable(strings.Join(logins[:min(len(logins), someLogins)], ", "))
	if more := len(logins) - someLogins; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// unwiseMechanisms looks at what listeners offer together.
func unwiseMechanisms(c *config.Config) (warnings []config.Problem) {
	add := func(key, format string, args ...any) { warnings = append(warnings, c.Problem(key, format, args...)) }
	tokens := false
	for i := range c.Listeners {
		l := &c.Listeners[i]
		key := fmt.Sprintf("listener[%d].mechanisms", i+1)
		offered := c.Offered(l)
		has := func(m string) bool { return slices.Contains(offered, m) }
		switch {
		case len(offered) == 0:
		case !slices.ContainsFunc(offered, func(m string) bool { return !strings.HasPrefix(m, "SCRAM-") }):
			add(key, "offers SCRAM alone: Outlook, Thunderbird, phones and printers cannot log "+
				"in, and accounts without its keys get none, since those are made at a login with PLAIN")
		case has(auth.CramMD5) && !has(auth.Plain) && !has(auth.Login):
			add(key, "offers CRAM-MD5 without PLAIN and LOGIN, which are what Outlook, Thunderbird and phones know: "+
				"CRAM-MD5 is for devices alone")
		case has(auth.Plain) && !has(auth.Login):
			add(key, "does not offer LOGIN, the only one that .NET's SmtpClient and old "+
				"devices know: they go on without a login, and get 530")
		}
		if l.TLS == config.NoTLS && has(auth.ScramSHA256) && has(auth.Plain) {
			add(key, "offers PLAIN beside SCRAM without TLS: who can change what is sent has "+
				"programs choose PLAIN, and reads the password")
		}
		inStore := func(s config.AuthSource) bool { return s.Type == config.SourceStore }
		if has(auth.External) && l.ClientCAFile == "" && !slices.ContainsFunc(c.Auth.Sources, inStore) {
			add(key, "offers EXTERNAL, and no certificate can log in: keys are pinned to "+
				"accounts of the store, which is no [[auth.source]], and client_ca_file is not set")
		}
		tokens = tokens || has(auth.OAuthBearer) || has(auth.XOAuth2)
	}
	for i := range c.Auth.Sources {
		if c.Auth.Sources[i].Type == config.SourceOIDC && !tokens {
			add(fmt.Sprintf("auth.source[%d]", i+1), "is never asked: no listener offers "+
				"tokens, write mechanisms = [\"PLAIN\", \"LOGIN\", \"OAUTHBEARER\", \"XOAUTH2\"]")
		}
	}
	return warnings
}

// scramFiles looks at password files where SCRAM is offered.
func scramFiles(c *config.Config) (warnings []config.Problem) {
	add := func(key, format string, args ...any) { warnings = append(warnings, c.Problem(key, format, args...)) }
	if len(c.OfferedAt(auth.ScramSHA256)) == 0 {
		return nil
	}
	for i := range c.Auth.Sources {
		s := &c.Auth.Sources[i]
		if s.Type != config.SourceFile {
			continue
		}
		f, err := passwdfile.New(s.Name, s.Path)
		if err != nil {
			continue // it is told of elsewhere
		}
		key := fmt.Sprintf("auth.source[%d].path", i+1)
		if n, first := f.WithoutScram(); n > 0 {
			add(key, "%d of its logins have no keys for SCRAM: %s; programs that choose it "+
				"get 535 for them. Write hashes that doveadm pw -s SCRAM-SHA-256 makes, or give the listener "+
				"other mechanisms",
				n, namedSome(first))
		}
		for _, shape := range f.ScramShapes() {
			if shape.Iterations < auth.ScramIterations/10 {
				add(key, "has SCRAM keys of %d iterations: who steals the file guesses fast. "+
					"Accounts of the store have %d, and doveadm makes no others", shape.Iterations,
					auth.ScramIterations)
				break
			}
		}
	}
	return warnings
}
