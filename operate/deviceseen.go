package operate

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/queue"
	"postern/relay/trace"
)

// Bounds of what is looked at and shown.
const (
	proposedFor   = 7 * 24 * time.Hour // after a learning its devices are proposed
	mostProposals = 256
	mostSeen      = 20_000 // events that are looked at
	mostUsed      = 8      // senders and recipients of a device that are shown
)

// Proposal is a device that was seen while learning.
type Proposal struct {
	Listener   string    `json:"listener"`
	Address    string    `json:"address"`
	Hello      string    `json:"hello,omitempty"` // what it calls itself
	TLS        string    `json:"tls,omitempty"`
	Login      string    `json:"login,omitempty"` // that it tried
	Senders    []string  `json:"senders"`         // in the envelope or as author, of mail that was held
	Recipients []string  `json:"recipients"`
	Messages   int       `json:"messages"` // that were held
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	Fault      string    `json:"fault,omitempty"` // the last refusal, in words
}

// Proposals are the devices that were seen while learning within a week and are not accepted yet, the newest first.
func (d Devices) Proposals(ctx context.Context, by Actor, now time.Time) ([]Proposal, error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	known, err := d.Store.KnownDevices(ctx)
	if err != nil {
		return nil, err
	}
	d.Store.AwaitEvents(ctx)
	found := sightings{known: known, of: make(map[string]*Proposal)}
	for _, q := range []trace.Query{
		{Login: devices.LearningLogin, Kinds: []trace.Kind{trace.Accepted}},
		{Kinds: []trace.Kind{trace.Refused, trace.AuthFail, trace.Rejected}},
	} {
		q.Since, q.Limit = found.since(now), mostSeen
		if q.Since.IsZero() {
			return nil, nil
		}
		events, err := d.Store.Events(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range events {
			found.add(&events[i])
		}
	}
	return found.proposals(), nil
}

// sightings collect proposals.
type sightings struct {
	known devices.Known
	of    map[string]*Proposal // by address
}

// since is when the first learning began whose devices are still proposed, zero if there is none.
func (s *sightings) since(now time.Time) (first time.Time) {
	for _, l := range s.known.Learnings {
		if l.Until.After(now.Add(-proposedFor)) && (first.IsZero() || l.Began.Before(first)) {
			first = l.Began
		}
	}
	return first
}

// add notes an event of a device that was being learned then and is not accepted.
func (s *sightings) add(e *trace.Event) {
	if e.Kind == trace.Rejected && e.Login != "" && e.Login != devices.LearningLogin {
		return // it has an account
	}
	client, err := netip.ParseAddr(e.Client)
	if err != nil || !slices.ContainsFunc(s.known.Learnings, func(l devices.Learning) bool {
		return l.Listener == e.Listener && l.Network.Contains(client) && !e.Time.Before(l.Began) &&
			e.Time.Before(l.Until)
	}) || slices.ContainsFunc(s.known.Places, func(p devices.Place) bool {
		return p.Listener == e.Listener && p.Address == client
	}) || slices.ContainsFunc(s.known.Forgotten, func(f devices.Forgotten) bool {
		return f.Listener == e.Listener && f.Address == client && !e.Time.After(f.At)
	}) {
		return
	}
	p := s.of[e.Client]
	if p == nil {
		if len(s.of) >= mostProposals {
			return
		}
		p = &Proposal{Listener: e.Listener, Address: e.Client, First: e.Time, Senders: []string{},
			Recipients: []string{}}
		s.of[e.Client] = p
	}
	p.see(e)
}

func (p *Proposal) see(e *trace.Event) {
	if e.Time.Before(p.First) {
		p.First = e.Time
	}
	newest := !e.Time.Before(p.Last)
	if newest {
		p.Last, p.Hello, p.TLS = e.Time, cmp.Or(e.Hello, p.Hello), cmp.Or(e.TLS, p.TLS)
	}
	use := func(list *[]string, address string) {
		if address != "" && len(*list) < mostUsed && !slices.Contains(*list, address) {
			*list = append(*list, address)
		}
	}
	switch e.Kind {
	case trace.Accepted:
		p.Messages++
		use(&p.Senders, e.Author)
		use(&p.Senders, e.From)
		use(&p.Recipients, e.To)
	case trace.AuthFail:
		p.Login = cmp.Or(e.Login, p.Login)
		fallthrough
	default:
		if newest {
			p.Fault = faultWords(e)
		}
	}
}

// faultWords say why something was refused.
func faultWords(e *trace.Event) string {
	words := e.Detail
	if e.Reply.Text != "" && e.Kind == trace.Rejected {
		words = e.Reply.String()
	}
	return mail.Printable(mail.Cut(cmp.Or(words, e.Reply.String()), 300))
}

func (s *sightings) proposals() []Proposal {
	list := make([]Proposal, 0, len(s.of))
	for _, p := range s.of {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Proposal) int {
		return cmp.Or(b.Last.Compare(a.Last), strings.Compare(a.Address, b.Address))
	})
	return list
}

// name is a login for the device.
func (p Proposal) name() string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == '_', r == ' ':
			return '-'
		}
		return -1
	}, p.Hello)
	if safe = strings.Trim(safe, "-."); safe != "" && strings.Trim(safe, "0123456789.") != "" {
		return safe
	}
	return "device-" + strings.NewReplacer(".", "-", ":", "-").Replace(p.Address)
}

// proposalOf is that of an address, or one of a device that was not seen yet where a listener is for it.
func (d Devices) proposalOf(ctx context.Context, by Actor, address netip.Addr) (Proposal, error) {
	all, err := d.Proposals(ctx, by, time.Now())
	if err != nil {
		return Proposal{}, err
	}
	for _, p := range all {
		if p.Address == address.String() {
			return p, nil
		}
	}
	for i := range d.Config().Listeners {
		l := &d.Config().Listeners[i]
		if l.IsAppliance() && l.Auth == config.AuthRequired && l.Networks.Contains(address) {
			return Proposal{Listener: l.Name, Address: address.String()}, nil
		}
	}
	return Proposal{}, fault(NotFound, `%s was not seen, and is in the networks of no [[listener]] with profile = `+
		`"appliance" and auth = "required"; see: postern device list`, address)
}

// heldOf are the messages that are held of an address that was learned.
func (d Devices) heldOf(ctx context.Context, address string) (own []*queue.Message, err error) {
	all, err := d.Store.List(ctx, queue.Filter{Login: devices.LearningLogin, Held: true, Limit: devices.MostHeld})
	for _, m := range all {
		if strings.HasPrefix(m.HoldReason, "from "+address+",") {
			own = append(own, m)
		}
	}
	return own, err
}

// release releases what is held of an address, as far as it is from these senders.
func (d Devices) release(ctx context.Context, by Actor, address string, senders []string) (int64, error) {
	held, err := d.heldOf(ctx, address)
	if err != nil {
		return 0, err
	}
	allowed, err := policy.New([]policy.Rule{{Senders: senders, UnlistedSender: policy.Refuse,
		Recipients: []string{"*"}, OverLimit: policy.Defer, MaxHeld: 1}})
	if err != nil {
		return 0, err
	}
	e := allowed.For(policy.Subject{})
	ids := []string{}
	for _, m := range held {
		if own, err := d.isOf(ctx, e, m); err != nil {
			return 0, err
		} else if own {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return Queue(d).Do(ctx, by, Release, queue.Filter{IDs: ids}, Order{})
}

// isOf reports whether a held message names nobody whom a device may not be: the policy that it was taken by lets it be
// anybody of ours, in every field.
func (d Devices) isOf(ctx context.Context, e policy.Effective, m *queue.Message) (bool, error) {
	if !m.Envelope.From.IsNull() && !e.MaySend(m.Envelope.From) {
		return false, nil
	}
	c, err := d.Store.Content(ctx, m.ID)
	if errors.Is(err, queue.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	text, err := headerOf(c)
	if err != nil {
		return false, err
	}
	h, _, err := mail.SplitHeader(append(text, "\r\n\r\n"...))
	if err != nil {
		return false, err
	}
	claimed, err := mail.CanonicalAuthors(&h)
	if err != nil {
		return false, err
	}
	for a := range claimed.All() {
		if !e.MaySend(a) {
			return false, nil
		}
	}
	return !claimed.Missing(), nil
}

// Sighting is what was last seen of a device that has an account.
type Sighting struct {
	Seen    time.Time `json:"seen,omitzero"` // a message of it was taken
	Client  string    `json:"client,omitempty"`
	Hello   string    `json:"hello,omitempty"`
	TLS     string    `json:"tls,omitempty"`
	Fault   string    `json:"fault,omitempty"` // the last refusal, in words
	FaultAt time.Time `json:"fault_at,omitzero"`
}

// maxSighted bounds the devices that are looked for, each with two searches.
const maxSighted = 500

// Sightings are what the trace has of devices, by login.
func (d Devices) Sightings(ctx context.Context, by Actor, users []auth.User) (map[string]Sighting, error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	d.Store.AwaitEvents(ctx)
	refused, err := d.Store.Events(ctx, trace.Query{Kinds: []trace.Kind{trace.Refused}, Limit: 2000})
	if err != nil {
		return nil, err
	}
	seen := make(map[string]Sighting)
	for _, u := range users {
		if !u.Device || len(seen) >= maxSighted {
			continue
		}
		if seen[u.Login], err = d.sighting(ctx, u, refused); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// Sighting is what the trace has of one device.
func (d Devices) Sighting(ctx context.Context, by Actor, u auth.User) (Sighting, error) {
	seen, err := d.Sightings(ctx, by, []auth.User{u})
	return seen[u.Login], err
}

func (d Devices) sighting(ctx context.Context, u auth.User, refused []trace.Event) (s Sighting, err error) {
	taken, err := d.Store.Events(ctx, trace.Query{Login: u.Login, Kinds: []trace.Kind{trace.Accepted}, Limit: 1})
	if err != nil {
		return s, err
	}
	faults, err := d.Store.Events(ctx, trace.Query{Login: u.Login, Limit: 1,
		Kinds: []trace.Kind{trace.Rejected, trace.AuthFail, trace.Refused}})
	if err != nil {
		return s, err
	}
	for _, e := range taken {
		s.Seen, s.Client, s.Hello, s.TLS = e.Time, e.Client, e.Hello, cmp.Or(e.TLS, "none")
	}
	for _, e := range refused { // before any login: of the addresses that it is known to have
		client, err := netip.ParseAddr(e.Client)
		own := err == nil && slices.ContainsFunc(u.Networks, func(n netip.Prefix) bool {
			return n.IsSingleIP() && n.Contains(client)
		})
		if own || e.Client != "" && e.Client == s.Client {
			faults = append(faults, e)
		}
	}
	for i := range faults {
		if e := &faults[i]; e.Time.After(s.FaultAt) {
			s.FaultAt, s.Fault = e.Time, faultWords(e)
		}
	}
	return s, nil
}
