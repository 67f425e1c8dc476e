package selfservice

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"postern/admin/access"
	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

// The cookies are not those of the console: a session here is none there.
const (
	sessionCookie access.Cookie = "postern-me"
	flowCookie    access.Cookie = "postern-me-login"
)

// touchEvery is how precisely it is known when a session was used.
const touchEvery = time.Minute

// visitor is who has a session.
type visitor struct {
	person auth.Person
	actor  operate.Actor
	digest [32]byte
}

// visitorOf returns who makes a request, nil for somebody unknown.
func visitorOf(ctx context.Context) *visitor {
	who, _ := ctx.Value(visitorKey).(*visitor)
	return who
}

// recognise puts into the context of a request who makes it, or why their session does not count.
func (s *Server) recognise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if cookie := sessionCookie.Of(r); cookie != "" {
			who, err := s.session(ctx, cookie, access.ClientOf(r))
			if err != nil {
				ctx = context.WithValue(ctx, faultKey, err)
			} else {
				ctx = operate.WithActor(context.WithValue(ctx, visitorKey, who), who.actor)
			}
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// open begins a session of who has just proved who they are, and gives the browser its cookie. One that it had before
// ends.
func (s *Server) open(w http.ResponseWriter, r *http.Request, p auth.Person) error {
	ctx, now := r.Context(), s.Now()
	if before := visitorOf(ctx); before != nil {
		if err := s.Store.EndPersonSession(ctx, before.digest); err != nil {
			return err
		}
	}
	switch _, err := s.Store.LoginLock(ctx, p.Login); {
	case err == nil:
		return &access.Refusal{Reason: access.ReasonDisabled}
	case !errors.Is(err, auth.ErrUnknownLogin):
		return err
	}
	token := rand.Text() + rand.Text()
	err := s.Store.AddPersonSession(ctx, store.PersonSession{Digest: sha256.Sum256([]byte(token)), Login: p.Login,
		Subject: p.Subject, Source: p.Source, Created: now, Used: now}, now.Add(-access.SessionFor),
		now.Add(-access.IdleFor))
	if err != nil {
		return err
	}
	sessionCookie.Set(w, r, token, access.SessionFor)
	flowCookie.Set(w, r, "", 0)
	return nil
}

// session returns who has a cookie. Its error is a *access.Refusal where the session does not count.
func (s *Server) session(ctx context.Context, cookie, client string) (*visitor, error) {
	digest := sha256.Sum256([]byte(cookie))
	held, p, err := s.Store.PersonSession(ctx, digest)
	if errors.Is(err, store.ErrNoSession) {
		return nil, &access.Refusal{Reason: access.ReasonSession, Err: err}
	}
	if err != nil {
		return nil, err
	}
	now := s.Now()
	switch {
	case now.Sub(held.Created) >= access.SessionFor:
		return nil, &access.Refusal{Reason: access.ReasonOver}
	case now.Sub(held.Used) >= access.IdleFor:
		return nil, &access.Refusal{Reason: access.ReasonIdle}
	case !s.stands(ctx, held, p):
		return nil, &access.Refusal{Reason: access.ReasonSession}
	}
	if now.Sub(held.Used) >= touchEvery {
		if err := s.Store.TouchPersonSession(ctx, digest, now); err != nil { // a full disk keeps nobody out
			s.Logger.Warn("self-service: the use of a session was not recorded", "err", err)
		}
	}
	return &visitor{p, operate.Actor{Name: p.Login, Channel: operate.SelfService, Client: client}, digest}, nil
}

// stands reports whether whoever began a session could begin it now: [self_service] may have changed, and so may their
// account. A source that does not answer ends nobody's session: the login that began it was right.
func (s *Server) stands(ctx context.Context, held store.PersonSession, p auth.Person) bool {
	c := s.Config().SelfService
	if held.Subject != "" {
		return c.OIDC != nil && strings.HasPrefix(held.Subject, c.OIDC.Issuer+" ") && mayUse(c.Groups, p.Groups)
	}
	if !slices.Contains(c.Sources, held.Source) {
		return false
	}
	id, err := s.Logins.Lookup(ctx, p.Login)
	switch {
	case errors.Is(err, auth.ErrLocked), errors.Is(err, auth.ErrUnknownLogin):
		return false
	case err != nil:
		return true
	}
	return id.Source == held.Source && !id.Changed.After(held.Created) && mayUse(c.Groups, id.Groups)
}

func mayUse(needed, groups []string) bool {
	return len(needed) == 0 || slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(needed, g) })
}
