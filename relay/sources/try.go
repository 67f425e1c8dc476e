package sources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/auth"
	"postern/mail"
)

// What a source answers about a login.
const (
	Right     = "right"
	Unknown   = "unknown"
	Wrong     = "wrong password"
	Locked    = "locked"
	NoToken   = "token not accepted"
	NoTokens  = "takes no tokens"
	Undecided = "cannot decide"
	Down      = "down"
	NotAsked  = "not asked" // one before it has decided
	NoLookup  = "knows logins only with their passwords"
)

// Answer is what one source says.
type Answer struct {
	Source string        `json:"source"`
	Type   string        `json:"type"`
	Answer string        `json:"answer"`
	Reason string        `json:"reason,omitempty"`
	Took   time.Duration `json:"-"`
	TookMS int64         `json:"took_ms"`
}

// Trial is what the sources say of a login, in the order in which they are asked.
type Trial struct {
	Login    string        `json:"login"` // normalised
	Answers  []Answer      `json:"answers"`
	OK       bool          `json:"ok"`
	Identity auth.Identity `json:"-"`
	// As is its name for limits and logs, which a directory may have changed.
	As       string   `json:"as,omitempty"`
	Groups   []string `json:"groups,omitempty"`
	Senders  []string `json:"senders,omitempty"`
	Networks []string `json:"networks,omitempty"`
}

// lookuper is a source that can say who a login is.
type lookuper interface {
	Lookup(ctx context.Context, login string) (auth.Identity, error)
}

// Try asks the sources as a login would, without the lockout and the cache. With lookup it asks who the login is, and
// the password does not count.
func Try(ctx context.Context, list []auth.Source, types []string, login, password string, lookup bool) Trial {
	t := Trial{Login: login}
	password = auth.Prepare(password)
	decided := false
	for i, s := range list {
		a := Answer{Source: s.Name(), Type: types[i], Answer: NotAsked}
		if !decided {
			began := time.Now()
			id, err := ask(ctx, s, login, password, lookup)
			a.Took = time.Since(began)
			a.TookMS = a.Took.Milliseconds()
			a.Answer, a.Reason = inWords(err)
			decided = a.Answer != Unknown && a.Answer != NoLookup
			if err == nil {
				t.accept(id)
			}
		}
		t.Answers = append(t.Answers, a)
	}
	return t
}

// TryToken asks the sources whose a bearer token is. Nothing is told of it but what it says.
func TryToken(ctx context.Context, list []auth.Source, types []string, login, token string) Trial {
	t := Trial{Login: login}
	for i, s := range list {
		a := Answer{Source: s.Name(), Type: types[i], Answer: NoTokens}
		if v, can := s.(auth.TokenSource); can && !t.OK {
			began := time.Now()
			id, err := v.VerifyToken(ctx, token)
			a.Took = time.Since(began)
			a.TookMS = a.Took.Milliseconds()
			if name, ok := auth.NormalizeLogin(id.Login); err == nil && (!ok || name != login) {
				err = fmt.Errorf("%w: it is that of %q", auth.ErrToken, name)
			}
			a.Answer, a.Reason = inWords(err)
			if err == nil {
				t.accept(id)
			}
		}
		t.Answers = append(t.Answers, a)
	}
	return t
}

func ask(ctx context.Context, s auth.Source, login, password string, lookup bool) (auth.Identity, error) {
	if !lookup {
		return s.Verify(ctx, login, password)
	}
	l, can := s.(lookuper)
	if !can {
		return auth.Identity{}, auth.ErrNoLookup
	}
	return l.Lookup(ctx, login)
}

func (t *Trial) accept(id auth.Identity) {
	t.OK, t.Identity, t.As, t.Groups, t.Senders = true, id, id.Login, id.Groups, id.Senders
	if t.As == "" {
		t.As = t.Login
	}
	for _, n := range id.Networks {
		t.Networks = append(t.Networks, n.String())
	}
}

func inWords(err error) (answer, reason string) {
	if err == nil {
		return Right, ""
	}
	reason = mail.Printable(mail.Cut(err.Error(), 500))
	for _, k := range []struct {
		is     error
		answer string
	}{{auth.ErrUnknownLogin, Unknown}, {auth.ErrWrongPassword, Wrong}, {auth.ErrLocked, Locked},
		{auth.ErrToken, NoToken}, {auth.ErrUndecided, Undecided}, {auth.ErrNoLookup, NoLookup}} {
		if errors.Is(err, k.is) {
			if err.Error() == k.is.Error() {
				reason = ""
			}
			return k.answer, reason
		}
	}
	return Down, reason
}
