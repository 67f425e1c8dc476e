package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"postern/relay/seal"
)

// GrantStore keeps one sealed grant for each upstream, shared by all nodes. Versions make writers notice each other.
// When SaveGrant returns nil the grant is durable.
type GrantStore interface {
	// LoadGrant returns the grant and its version, which is above 0; ErrNoGrant if there is none.
	LoadGrant(ctx context.Context, upstream string) (sealed []byte, version int64, err error)
	// SaveGrant replaces the grant if it still has this version (0: if there is none) and returns the new version;
	// ErrGrantChanged if somebody else has written.
	SaveGrant(ctx context.Context, upstream string, sealed []byte, version int64) (int64, error)
	// Consented tells the other processes that a person has consented.
	Consented(ctx context.Context) error
	// Ahead is how far the clock that all nodes share is ahead of this machine's.
	Ahead() time.Duration
}

// Errors of a GrantStore.
var (
	ErrNoGrant      = errors.New("no grant")
	ErrGrantChanged = errors.New("the grant was changed by somebody else")
)

// grant is what is sealed: what a person has consented to, and the access token that nodes share. What is sealed has
// its times by the clock that nodes share, and a grant in memory by ours: else a node whose clock is ahead would take
// over the lease of one that refreshes, and the server would see a refresh token twice.
type grant struct {
	ClientID  string    `json:"client_id"`
	Refresh   string    `json:"refresh"`
	Consented time.Time `json:"consented"`           // when a person did
	Refreshed time.Time `json:"refreshed"`           // when the server last answered to it
	Ends      time.Time `json:"ends,omitzero"`       // the server said so
	Scopes    []string  `json:"scopes,omitempty"`    // that were asked for; none: nobody kept them
	Configed  string    `json:"configured,omitzero"` // thumbprint of the configured refresh token it began with

	Access string    `json:"access,omitempty"`
	Expiry time.Time `json:"expiry,omitzero"`
	Got    time.Time `json:"got,omitzero"` // when Access was fetched

	Lease   time.Time `json:"lease,omitzero"` // until then Leasing refreshes, and others wait
	Leasing string    `json:"leasing,omitempty"`
}

// times are all that a grant has.
func (g *grant) times() []*time.Time {
	return []*time.Time{&g.Consented, &g.Refreshed, &g.Ends, &g.Expiry, &g.Got, &g.Lease}
}

// shift moves all times by d.
func (g *grant) shift(d time.Duration) {
	for _, t := range g.times() {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
}

// leased reports whether another node refreshes. A lease that ends too late was made while a clock was wrong.
func (g *grant) leased(node string, now time.Time) bool {
	return g.Leasing != node && now.Before(g.Lease) && !g.Lease.After(now.Add(2*leaseFor))
}

// take puts a response into the grant. A response without a refresh token leaves the one there is (RFC 6749 §6).
func (g *grant) take(r *response, now time.Time) {
	if !r.refresh.IsZero() {
		g.Refresh = r.refresh.Reveal()
	}
	if !r.refreshExpires.IsZero() {
		g.Ends = r.refreshExpires
	}
	g.Refreshed = now
	g.Access, g.Expiry, g.Got = r.access.Reveal(), r.expiry, now
	g.Lease, g.Leasing = time.Time{}, ""
}

// refreshScopes are named again at each refresh. Microsoft wants that of some applications (AADSTS900144), and lets
// nobody ask for more than was consented to; elsewhere leaving them out means the same (RFC 6749 §6).
func (s *Source) refreshScopes(g *grant) []string {
	switch {
	case !s.p.microsoft:
		return nil
	case len(g.Scopes) > 0:
		return g.Scopes
	}
	return s.p.least
}

// askAgain exchanges the refresh token. A consent from elsewhere, or from before scopes were kept, may be for others
// than we know: then none are named.
func (s *Source) askAgain(ctx context.Context, g *grant) (*response, *Error) {
	form := func() url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {g.Refresh}}
	}
	scopes := s.refreshScopes(g)
	r, e := s.request(ctx, form(), scopes)
	if e != nil && len(scopes) > 0 && len(g.Scopes) == 0 && len(s.o.Scopes) == 0 &&
		slices.Contains(aboutScopes, e.Code) {
		return s.request(ctx, form(), nil)
	}
	return r, e
}

// aboutScopes are what Microsoft calls scopes that were not consented to, or are not for this application.
var aboutScopes = []string{"AADSTS65001", "AADSTS65005", "AADSTS650057", "AADSTS70011", "AADSTS28000", "invalid_scope"}

func (g *grant) token() Token { return Token{NewSecret(g.Access), g.Expiry} }

// fresh reports whether the access token is worth handing out: not the one that was refused or is to be replaced, and
// not so old that it would be fetched again at once.
func (g *grant) fresh(not []Secret, now time.Time) bool {
	if g.Access == "" || now.After(g.Expiry.Add(-maxMargin(g.Expiry.Sub(g.Got)))) {
		return false
	}
	for _, secret := range not {
		if !secret.IsZero() && secret.Equal(NewSecret(g.Access)) {
			return false
		}
	}
	return true
}

// loadGrant reads and opens the grant. What is wrong with the store passes; what is wrong with the grant a person
// mends.
func (s *Source) loadGrant(ctx context.Context) (*grant, int64, *Error) {
	g, version, err := s.readGrant(ctx)
	if err != nil {
		err.about = aboutGrant(nil, version)
		return nil, version, err
	}
	s.learn(g)
	return g, version, nil
}

// aboutGrant names what a fault is about: the refresh token, or what cannot be read by its version. A lease changes
// neither.
func aboutGrant(g *grant, version int64) string {
	if g == nil {
		return "version " + strconv.FormatInt(version, 10)
	}
	return thumbprint(NewSecret(g.Refresh))
}

func (s *Source) readGrant(ctx context.Context) (*grant, int64, *Error) {
	sealed, version, err := s.o.Grants.LoadGrant(ctx, s.o.Upstream)
	switch {
	case errors.Is(err, ErrNoGrant):
		return s.firstGrant()
	case err != nil:
		return nil, 0, pressureError(codeStore, "the store does not give the consent for "+s.o.Upstream, err)
	}
	plain, err := s.o.Sealer.Open(SealLabel(s.o.Upstream), sealed)
	if err != nil {
		fix := fixLogin
		if errors.Is(err, seal.ErrOtherKey) {
			fix = "copy " + seal.KeyFile + " from the data_dir of the node that has it, or " + fixLogin
		}
		e := s.fault(codeNoGrant, fmt.Sprintf("the stored consent for %s is %v", s.o.Upstream, err), fix)
		e.Err = err
		return nil, version, e
	}
	g := new(grant)
	if err := json.Unmarshal(plain, g); err != nil {
		return nil, version, s.fault(codeNoGrant, "the stored consent cannot be read", fixLogin)
	}
	g.shift(-s.o.Grants.Ahead())
	if e := s.suits(g); e != nil {
		return nil, version, e
	}
	return g, version, nil
}

// suits reports whether the grant is for the configured application.
func (s *Source) suits(g *grant) *Error {
	if s.o.Flow == RefreshToken && g.Configed != thumbprint(s.o.RefreshToken) {
		*g = s.configured() // another one was configured since
	}
	if g.ClientID != s.o.ClientID {
		return s.fault(codeNoGrant, "the consent was given to another application", fixLogin)
	}
	return nil
}

func (s *Source) firstGrant() (*grant, int64, *Error) {
	if s.o.Flow == RefreshToken {
		g := s.configured()
		return &g, 0, nil
	}
	return nil, 0, s.fault(codeNoGrant, "nobody has consented yet", fixLogin)
}

func (s *Source) configured() grant {
	return grant{ClientID: s.o.ClientID, Refresh: s.o.RefreshToken.Reveal(), Configed: thumbprint(s.o.RefreshToken)}
}

// saveGrant seals and writes; the errors are the store's.
func (s *Source) saveGrant(ctx context.Context, g *grant, version int64) (int64, error) {
	shared := *g
	shared.shift(s.o.Grants.Ahead())
	plain, err := json.Marshal(&shared)
	if err != nil {
		return 0, err
	}
	return s.o.Grants.SaveGrant(ctx, s.o.Upstream, s.o.Sealer.Seal(SealLabel(s.o.Upstream), plain), version)
}

// learn remembers what Expiries tells.
func (s *Source) learn(g *grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.refreshed, s.known.ends = g.Refreshed, g.Ends
}

// MemoryGrants is a GrantStore for tests and the demo.
type MemoryGrants struct {
	mu     sync.Mutex // guards what follows
	sealed map[string][]byte
	at     map[string]int64
}

// NewMemoryGrants makes an empty store.
func NewMemoryGrants() *MemoryGrants {
	return &MemoryGrants{sealed: map[string][]byte{}, at: map[string]int64{}}
}

// LoadGrant is of GrantStore.
func (m *MemoryGrants) LoadGrant(_ context.Context, upstream string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at[upstream] == 0 {
		return nil, 0, ErrNoGrant
	}
	return bytes.Clone(m.sealed[upstream]), m.at[upstream], nil
}

// SaveGrant is of GrantStore.
func (m *MemoryGrants) SaveGrant(_ context.Context, upstream string, sealed []byte, version int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at[upstream] != version {
		return 0, ErrGrantChanged
	}
	m.sealed[upstream] = bytes.Clone(sealed)
	m.at[upstream]++
	return m.at[upstream], nil
}

// Consented is of GrantStore.
func (m *MemoryGrants) Consented(context.Context) error { return nil }

// Ahead is of GrantStore.
func (m *MemoryGrants) Ahead() time.Duration { return 0 }

// SealLabel is what a grant is sealed as: it binds it to its upstream.
func SealLabel(upstream string) string { return "postern grant\x00" + upstream }
