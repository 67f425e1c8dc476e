package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"postern/operate"
	"postern/relay/store"
)

// How long things last.
const (
	SessionFor = 12 * time.Hour   // a session, however much it is used
	IdleFor    = 30 * time.Minute // a session that is not used
	StrongFor  = 5 * time.Minute  // what asks for the second factor, once it was given
	touchEvery = time.Minute      // how precisely it is known when a session or token was used
)

// Session is a browser that somebody has logged in with.
type Session struct {
	Name        string
	Role        operate.Role
	Began       time.Time
	Ends        time.Time // however much it is used
	StrongUntil time.Time // when the second factor will be asked for again; zero or past: now
	HasCode     bool      // the user has an authenticator, which makes codes
	HasPasskey  bool
	ByOIDC      bool

	token  string
	digest [32]byte
	user   store.ConsoleUser
}

// Actor is who the session is for the operations.
func (s *Session) Actor(client string, now time.Time) operate.Actor {
	return operate.Actor{Name: s.Name, Channel: operate.Console, Client: client, Role: s.Role,
		Strong: now.Before(s.StrongUntil)}
}

// begin opens a session for a user, in the place of another one unless that is nil. It returns what the browser keeps.
func (a *core) begin(ctx context.Context, u store.ConsoleUser, client string, strong bool, before *Session) (string,
	error) {
	now := a.now()
	c := store.ConsoleSession{Name: u.Name, Generation: u.Generation, Created: now, Client: client}
	if strong {
		c.Strong = now
	}
	var replaces *[32]byte
	if before != nil {
		replaces, c.Created = &before.digest, before.Began // a new cookie is no new 12 hours
	}
	return a.open(ctx, c, replaces)
}

// open stores a session, in the place of another one unless that is nil.
func (a *core) open(ctx context.Context, c store.ConsoleSession, replaces *[32]byte) (string, error) {
	now := a.now()
	token, c := newSession(c, now)
	err := a.store.AddConsoleSession(ctx, c, replaces, now.Add(-SessionFor), now.Add(-IdleFor))
	if errors.Is(err, store.ErrNoSession) {
		return "", refuse(ReasonSession, err)
	}
	if err != nil {
		return "", err
	}
	return token, nil
}

// newSession completes a session with a token of its own.
func newSession(c store.ConsoleSession, now time.Time) (string, store.ConsoleSession) {
	token := random()
	c.Digest, c.Used = sha256.Sum256([]byte(token)), now
	return token, c
}

// Session returns the session of a cookie. used says that a person did something: a page that looks for news by itself
// keeps no session open.
func (a Logins) Session(ctx context.Context, token string, used bool) (*Session, error) {
	digest := sha256.Sum256([]byte(token))
	c, u, err := a.store.ConsoleSession(ctx, digest)
	if errors.Is(err, store.ErrNoSession) {
		return nil, refuse(ReasonSession, err)
	}
	if err != nil {
		return nil, err
	}
	now := a.now()
	switch {
	case now.Sub(c.Created) >= SessionFor:
		return nil, refuse(ReasonOver, nil)
	case now.Sub(c.Used) >= IdleFor:
		return nil, refuse(ReasonIdle, nil)
	}
	if used && now.Sub(c.Used) >= touchEvery {
		if err := a.store.TouchConsoleSession(ctx, digest, now); err != nil {
			a.log.Warn("console: the use of a session was not recorded", "err", err) // a full disk keeps nobody out
		}
	}
	s := &Session{Name: u.Name, Role: roleOf(u), Began: c.Created, Ends: c.Created.Add(SessionFor),
		HasCode:    u.TOTP != "",
		HasPasskey: len(u.Passkeys) > 0, ByOIDC: u.Provider != "", token: token, digest: digest, user: u}
	if !c.Strong.IsZero() {
		s.StrongUntil = c.Strong.Add(StrongFor)
	}
	return s, nil
}

// Logout ends a session.
func (a Logins) Logout(ctx context.Context, s *Session, client string) error {
	return a.store.EndConsoleSession(a.recorded(ctx, s.Actor(client, a.now()), opLogout, "", ""), s.digest)
}

// StepUp takes the second factor again: a code of the authenticator. It returns the cookie that takes the place of the
// one before.
func (a Logins) StepUp(ctx context.Context, s *Session, code, client string) (string, error) {
	who := s.Actor(client, a.now())
	if err := a.lockedNow(s.Name, client); err != nil {
		return "", err
	}
	u, err := a.takeCode(ctx, s.Name, code, client, false)
	if err != nil {
		a.auditFailure(ctx, who, opStepUp, err)
		return "", err
	}
	return a.stronger(ctx, s, u, who)
}

// stronger gives a session that has proved the second factor a new cookie.
func (a *core) stronger(ctx context.Context, s *Session, u store.ConsoleUser, who operate.Actor) (string, error) {
	if u.Generation != s.user.Generation {
		return "", refuse(ReasonSession, errors.New("the user was changed meanwhile"))
	}
	return a.begin(a.recorded(ctx, who, opStepUp, "", ""), u, who.Client, true, s)
}
