package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"postern/internal/periodic"
	"postern/mail"
)

const (
	// leaseFor is how long a node may take to refresh; then another takes over. It is twice timeout: who asks has all
	// of timeout left. A late first answer still finds its place (see savePending).
	leaseFor = time.Minute
	// leasePoll is how often those that wait for another node look.
	leasePoll = time.Second
	// saveBound is how long the pair that a server just gave may take to be written, whatever becomes of the callers.
	saveBound = 15 * time.Second
)

// pending is a grant that the server has replaced and the store has not taken yet. Losing it could lose the consent:
// many servers take a refresh token once only.
type pending struct {
	grant   *grant
	used    string // the refresh token that it replaces
	version int64
}

// refresh gets an access token from the grant. Order of operations:
//
//  1. What is pending is saved before anything else is asked.
//  2. The grant is loaded; if another node has put a fresh token there, that is the answer.
//  3. A lease is saved in the grant, so that one node refreshes and the others wait.
//  4. The server is asked.
//  5. The new refresh token and the access token are saved together.
//  6. The access token is used.
//
// A failure before 4 has changed nothing. Between 4 and 6 the pair is pending. A process that dies there loses the new
// refresh token; the old one is tried at the next start, which servers with a grace period and Microsoft take.
func (s *Source) refresh(ctx context.Context, not []Secret) (Token, *Error) {
	for again := true; ; {
		if s.pending != nil {
			if t, e := s.savePending(ctx); e != nil || s.usable(t, time.Now()) {
				return t, e
			}
		}
		g, version, e := s.claim(ctx, not)
		if e != nil {
			return Token{}, e
		}
		if g.Leasing != s.node {
			return g.token(), nil
		}
		if time.Until(g.Lease) < leaseFor-timeout {
			continue // we were stopped meanwhile: when we have asked, another node may have the lease
		}
		r, e := s.askAgain(ctx, g)
		if e == nil {
			next := *g
			next.take(r, time.Now())
			s.pending = &pending{&next, g.Refresh, version}
			continue
		}
		e.about = aboutGrant(g, version)
		if replaced := s.release(ctx, g, version); !replaced || !again || e.Class != mail.AccountFault {
			return Token{}, e
		}
		again = false // somebody logged in while we asked with the old grant
	}
}

// claim returns either the grant with our lease on it, or the grant with a fresh token in it.
func (s *Source) claim(ctx context.Context, not []Secret) (*grant, int64, *Error) {
	for {
		g, version, e := s.loadGrant(ctx)
		if e != nil {
			return nil, 0, e
		}
		now := time.Now()
		if g.fresh(not, now) {
			g.Leasing = ""
			return g, version, nil
		}
		if g.leased(s.node, now) {
			if periodic.Sleep(ctx, leasePoll) != nil {
				return nil, 0, pressureError(codeStore, "another node is fetching a token and does not finish",
					context.Cause(ctx))
			}
			continue
		}
		g.Lease, g.Leasing = now.Add(leaseFor), s.node
		version, err := s.saveGrant(ctx, g, version)
		switch {
		case err == nil:
			return g, version, nil
		case !errors.Is(err, ErrGrantChanged):
			// Better not to ask than to ask and be unable to keep the answer.
			return nil, 0, pressureError(codeStore, "the store does not take the consent for "+s.o.Upstream, err)
		}
	}
}

// savePending writes the pending grant and returns its token, or none if what is stored has overtaken it. The server
// has answered: what becomes of the callers matters no more.
func (s *Source) savePending(ctx context.Context) (Token, *Error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveBound)
	defer cancel()
	p := s.pending
	for {
		_, err := s.saveGrant(ctx, p.grant, p.version)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrGrantChanged) {
			return Token{}, pressureError(codeStore,
				"the store does not take the renewed consent for "+s.o.Upstream+
					"; the token that came with it is not used before it does", err)
		}
		g, version, e := s.loadGrant(ctx)
		if e != nil && e.Temporary() {
			return Token{}, e
		}
		if e != nil || g.Refresh != p.used {
			// A person has logged in again, or another node went on, or the save that seemed to fail did not: what is
			// stored counts, and is looked at next.
			s.pending = nil
			return Token{}, nil
		}
		p.version = version // only the lease was taken over: ours comes after it
	}
	s.pending = nil
	s.learn(p.grant)
	return p.grant.token(), nil
}

// release takes our lease off, and reports whether somebody else has put another grant in place.
func (s *Source) release(ctx context.Context, g *grant, version int64) (replaced bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveBound)
	defer cancel()
	free := *g
	free.Lease, free.Leasing = time.Time{}, ""
	if _, err := s.saveGrant(ctx, &free, version); !errors.Is(err, ErrGrantChanged) {
		return false // it ends by itself
	}
	now, _, e := s.loadGrant(ctx)
	return e == nil && now.Refresh != g.Refresh
}

func thumbprint(secret Secret) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return hex.EncodeToString(sum[:8])
}
