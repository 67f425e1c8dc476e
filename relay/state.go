package relay

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/sign"
	"postern/relay/spool"
	"postern/relay/upstream"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/replies"
	"postern/relay/upstream/storm"
)

// state is everything that follows from the configuration and the keys. It never changes once it is
// published: a reload makes a new one, and whoever holds the old one goes on with it.
type state struct {
	config     *config.Config
	policy     *policy.Policy
	ring       *sign.Ring
	upstreams  []*configured // in file order
	routes     []route
	bounceFrom mail.Address
}

// configured is an upstream with the block of relay.toml that it was made of.
type configured struct {
	transport
	config   config.Upstream
	tokens   *tokens // nil without OAuth
	homeless *homeless
	standby  *standby
	storms   *storm.Watch
	written  *replies.Rules // of the block alone
	nullPath nullPath
	fields   []mail.Field // that every message gets here
}

// reserve takes a place. Without one, until says when to ask again; zero: when one gets free.
func (c *configured) reserve(now time.Time, identity string) (slot place, until time.Time) {
	return c.Reserve(now, identity)
}

// route is a compiled [[route]].
type route struct {
	match     policy.Matcher
	upstreams []*configured
}

// newState builds a state. Upstreams whose blocks did not change are taken over from before, with their
// connections, back-off and rate.
func (s *Server) newState(ctx context.Context, c *config.Config, before *state) (*state, error) {
	st := &state{config: c}
	var err error
	if st.policy, err = policy.New(c.Rules()); err != nil {
		return nil, err
	}
	if before != nil {
		st.policy.Succeed(before.policy)
	}
	users, err := s.store.Users(ctx)
	if err != nil {
		return nil, err
	}
	st.policy.SetGroups(members(users))
	if st.ring, err = s.loadKeys(ctx, c); err != nil {
		return nil, err
	}
	if c.Delivery.BounceFrom != "" {
		if st.bounceFrom, err = mail.ParseAddress(c.Delivery.BounceFrom); err != nil {
			return nil, fmt.Errorf("delivery.bounce_from: %w", err)
		}
	}
	for _, block := range c.Upstreams {
		up, err := s.newUpstream(c, block, before)
		if err != nil {
			return nil, err
		}
		st.upstreams = append(st.upstreams, up)
	}
	return st, st.compileRoutes(c)
}

// loadKeys reads the DKIM keys of the configuration and of the store. One that cannot be read is an
// error: mail would leave unsigned.
func (s *Server) loadKeys(ctx context.Context, c *config.Config) (*sign.Ring, error) {
	keys, err := Keys(ctx, c, s.store)
	if err != nil {
		return nil, err
	}
	return sign.NewRing(keys), nil
}

func newKey(domain, selector string, pem []byte) (sign.Key, error) {
	signer, err := sign.ParseKey(pem)
	if err != nil {
		return sign.Key{}, err
	}
	key := sign.Key{Domain: strings.ToLower(domain), Selector: selector, Signer: signer}
	_, err = sign.CheckKey(key)
	return key, err
}

// signatureLife is x= of our signatures: longer than a message may wait here and at the next hops, short
// enough to bound replay.
const signatureLife = 7 * 24 * time.Hour

func (s *Server) newUpstream(c *config.Config, block config.Upstream, before *state) (*configured, error) {
	if before != nil && before.config.Hostname == c.Hostname {
		for _, old := range before.upstreams {
			if reflect.DeepEqual(old.config, block) && !block.NamesFiles() {
				return old, nil
			}
		}
	}
	source, err := NewTokens(c, block, s.store, s.log)
	if err != nil {
		return nil, err
	}
	up, err := newTransport(c.Hostname, block, source, s.store, s.log)
	if err != nil {
		return nil, err
	}
	written, err := replies.Compile(block.WrittenRules())
	if err != nil {
		return nil, err
	}
	made := &configured{transport: up, config: block, homeless: newHomeless(), fields: block.AddedFields(),
		storms: watchFor(block.Name, block.SendsAsSender(), before), written: written}
	made.standby = newStandby(block.MaxConnections, s.draining, func(now time.Time) (place, time.Time) { return made.reserve(now, "") })
	up.OnChange(func() {
		made.standby.wake()
		s.upstreamChanged()
	})
	if source != nil {
		made.tokens = &tokens{source: source, name: block.Name, log: s.log}
	}
	return made, nil
}

func (st *state) compileRoutes(c *config.Config) error {
	for i, r := range c.Routes {
		match, err := policy.NewMatcher(r.Match())
		if err != nil {
			return fmt.Errorf("route[%d]: %w", i+1, err)
		}
		compiled := route{match: match}
		for _, name := range r.Upstreams {
			compiled.upstreams = append(compiled.upstreams, st.upstream(name))
		}
		st.routes = append(st.routes, compiled)
	}
	return nil
}

func (st *state) upstream(name string) *configured {
	i := slices.IndexFunc(st.upstreams, func(u *configured) bool { return u.config.Name == name })
	return st.upstreams[i] // config.Load has checked that it exists
}

// routeFor returns the upstreams for one recipient of a message: those of the first route that matches,
// or all in file order.
func (st *state) routeFor(m *queue.Message, to mail.Address) []*configured {
	for _, r := range st.routes {
		if r.match.Matches(policy.Facts{Login: m.Login, Groups: m.Groups, Listener: m.Listener, Sender: m.Envelope.From, Recipient: to}) {
			return r.upstreams
		}
	}
	return st.upstreams
}

// groups sorts the pending recipients of a message by route.
func (st *state) groups(m *queue.Message) []group {
	var groups []group
next:
	for _, i := range pendingOf(m) {
		ups := st.routeFor(m, m.Recipients[i].To)
		for g := range groups {
			if slices.Equal(groups[g].route, ups) {
				groups[g].pending = append(groups[g].pending, i)
				continue next
			}
		}
		groups = append(groups, group{route: ups, pending: []int{i}})
	}
	return groups
}

// prepare makes a transaction's content ready for an upstream: its add_headers, then its dkim setting, sign, skip or strip.
func (st *state) prepare(tx *upstream.Transaction, up *configured, m *queue.Message) error {
	if err := editHeader(tx, up); err != nil {
		return err
	}
	if up.config.DKIM != config.DKIMSign {
		return nil
	}
	keys := st.ring.For(m.Author.Domain)
	if len(keys) == 0 {
		return nil
	}
	tx.Prefix = func(context.Context) ([]byte, error) {
		return sign.Sign(tx.Content, keys, time.Now(), sign.Options{Expire: signatureLife, Unsigned: unsignedFields(up)})
	}
	return nil
}

// unsignedFields are those that our signature must not cover because the upstream changes them.
func unsignedFields(up *configured) []string {
	if up.config.MessageID == profile.MessageIDReplaced {
		return []string{"Message-ID"}
	}
	return nil
}

// editHeader puts an upstream's add_headers on top, in the place of fields with these names that the message came with: what
// is written in relay.toml is fixed. With dkim = "strip" it takes out the signatures of others, for upstreams that refuse a
// second one.
func editHeader(tx *upstream.Transaction, up *configured) error {
	var gone []string
	if up.config.DKIM == config.DKIMStrip {
		gone = append(gone, "DKIM-Signature")
	}
	for _, f := range up.fields {
		gone = append(gone, f.Name)
	}
	if len(gone) == 0 {
		return nil
	}
	head, err := mail.FirstOctets(tx.Content, 2*mail.HeaderPrefix)
	if err != nil {
		return err
	}
	h, body, err := mail.SplitHeader(head)
	if err != nil {
		return err
	}
	if h.Remove(gone...) == 0 && len(up.fields) == 0 {
		return nil
	}
	h.Prepend(up.fields...)
	tx.Content = spool.Join(h.Bytes(), tx.Content, int64(body))
	return nil
}
