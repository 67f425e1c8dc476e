package outbound

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/upstream"
	"postern/relay/upstream/oauth"
	"postern/relay/upstream/replies"
	"postern/relay/upstream/storm"
)

// Upstream is a transport to a provider, the block of relay.toml that it was made from, and what it has learnt.
type Upstream struct {
	upstream.Transport
	Config config.Upstream
	Tokens *oauth.Source // nil without OAuth

	upkeep         *upkeep // of Tokens
	withoutMailbox *withoutMailbox
	prefetch       *prefetch
	storms         *storm.Watch
	written        *replies.Rules // of the block alone
	nullPath       nullPath
	fields         []mail.Field // that every message gets here
}

// NewUpstream makes an Upstream that has learnt nothing yet. Once stopping is closed, nothing waits for its slots.
func NewUpstream(t upstream.Transport, block config.Upstream, stopping <-chan struct{}) (*Upstream, error) {
	written, err := replies.Compile(block.WrittenRules())
	if err != nil {
		return nil, err
	}
	up := &Upstream{Transport: t, Config: block, withoutMailbox: newWithoutMailbox(), fields: block.AddedFields(),
		storms: storm.New(block.SendsAsSender()), written: written}
	up.prefetch = newPrefetch(block.MaxConnections, stopping, func(now time.Time) (upstream.Slot, time.Time) {
		return up.Reserve(now, "")
	})
	return up, nil
}

// upstream makes what a block describes, or takes it over from before.
func (d *Dispatcher) upstream(c *config.Config, block config.Upstream, before *Routes) (*Upstream, error) {
	if before != nil && before.hostname == c.Hostname {
		for _, old := range before.Upstreams {
			if reflect.DeepEqual(old.Config, block) && !block.NamesFiles() {
				return old, nil
			}
		}
	}
	source, err := NewTokens(c, block, d.Store, d.Logger)
	if err != nil {
		return nil, err
	}
	up, err := newTransport(c.Hostname, block, source, memory{d.Store, d.Sharing}, d.Logger)
	if err != nil {
		return nil, err
	}
	made, err := NewUpstream(up, block, d.Stopping)
	if err != nil {
		return nil, errors.Join(err, up.Close(context.Background()))
	}
	if before != nil {
		made.storms = cmp.Or(before.stormsOf(block), made.storms)
	}
	up.OnChange(func() {
		made.prefetch.wake()
		d.Changed()
	})
	if source != nil {
		made.Tokens, made.upkeep = source, &upkeep{source: source, name: block.Name, log: d.Logger}
	}
	return made, nil
}

// Close ends the upstream, and then what gives it tokens.
func (u *Upstream) Close(ctx context.Context) error {
	err := u.Transport.Close(ctx)
	if u.upkeep != nil {
		u.upkeep.close()
	}
	return err
}

// Secrets returns when the OAuth secrets, certificates and consents of the upstream end. On an error, the end of a
// grant in the store may be missing.
func (u *Upstream) Secrets(ctx context.Context, now time.Time) ([]oauth.Expiry, error) {
	if u.Tokens == nil {
		return nil, nil
	}
	err := u.Tokens.Load(ctx)
	return u.Tokens.Expiries(now), err
}

// SentAsUsername reports that the provider has no mailbox for an identity, so that its mail is sent as the username.
func (u *Upstream) SentAsUsername(identity string, now time.Time) bool {
	return identity != u.Config.Username && u.withoutMailbox.has(identity, now)
}

// Storms are the refusals that are not believed now.
func (u *Upstream) Storms() *storm.Watch { return u.storms }
