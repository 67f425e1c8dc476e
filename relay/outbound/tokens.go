package outbound

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/seal"
	relaystore "postern/relay/store"
	"postern/relay/upstream"
	"postern/relay/upstream/oauth"
)

// NewTokens makes the source of access tokens for a block with [upstream.oauth]; nil for one without. grants is where
// consents are stored, sealed with the key of the store of c, which is made where it is missing.
func NewTokens(c *config.Config, block config.Upstream, grants oauth.GrantStore, log *slog.Logger) (*oauth.Source,
	error) {
	if block.OAuth == nil {
		return nil, nil
	}
	sealer := (*seal.Sealer)(nil)
	if block.OAuth.Flow.Delegated() {
		var err error
		if sealer, err = relaystore.Of(c).Sealer(); err != nil {
			return nil, fmt.Errorf("upstream %s: oauth: %w", block.Name, err)
		}
	}
	return newTokens(block, c.SendsForOthers(&block), grants, sealer, log)
}

// NewTokensAlone is NewTokens before there is a store: nobody has consented yet, and nothing is made on the disk.
func NewTokensAlone(block config.Upstream, others bool, log *slog.Logger) (*oauth.Source, error) {
	if block.OAuth == nil {
		return nil, nil
	}
	sealer, err := seal.New(make([]byte, 32)) // seals nothing that lasts
	if err != nil {
		return nil, err
	}
	return newTokens(block, others, oauth.NewMemoryGrants(), sealer, log)
}

// CheckTokens says what NewTokens would refuse, without making anything.
func CheckTokens(block config.Upstream) error {
	_, err := Expiries(block, time.Time{})
	return err
}

// Expiries returns what an upstream logs in with and when it ends, as far as relay.toml and its files say.
func Expiries(block config.Upstream, now time.Time) ([]oauth.Expiry, error) {
	source, err := NewTokensAlone(block, false, slog.New(slog.DiscardHandler))
	if source == nil || err != nil {
		return nil, err
	}
	defer source.Close()
	return source.Expiries(now), nil
}

func newTokens(block config.Upstream, others bool, grants oauth.GrantStore, sealer *seal.Sealer, log *slog.Logger) (
	*oauth.Source, error) {
	o, err := tokenOptions(block)
	if err == nil {
		o.Others, o.Grants, o.Sealer, o.Logger = others, grants, sealer, log
		var source *oauth.Source
		if source, err = oauth.NewSource(o); err == nil {
			return source, nil
		}
	}
	return nil, fmt.Errorf("upstream %s: oauth: %w", block.Name, err)
}

func tokenOptions(block config.Upstream) (oauth.Options, error) {
	o, err := block.TokenOptions()
	if err != nil {
		return o, err
	}
	if o.RootCAs, err = anchors(block.CAFile); err != nil {
		return o, err
	}
	proxy, err := proxyOf(block)
	if proxy != nil {
		o.Dial = proxy.Dial
	}
	return o, err
}

// CertificateEnd reads the end of the first certificate in a PEM file.
func CertificateEnd(file string) (time.Time, error) {
	all, err := anchors(file)
	if err != nil {
		return time.Time{}, err
	}
	if len(all) == 0 {
		return time.Time{}, errors.New("there is no certificate in it")
	}
	return all[0].NotAfter, nil // leaf first
}

// anchors reads ca_file. A TLS proxy in this network also intercepts the login service.
func anchors(file string) ([]*x509.Certificate, error) {
	if file == "" {
		return nil, nil
	}
	rest, err := textfile.Read(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all, nil
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, cert)
		}
	}
}

// useTokens plugs a source into what an upstream client needs. nil changes nothing.
func useTokens(set *upstream.Settings, source *oauth.Source) {
	if source == nil {
		return
	}
	name := set.Name
	set.Token = func(ctx context.Context, identity string) (string, error) {
		t, err := source.Token(ctx, identity)
		if err != nil {
			return "", tokenError{err, name}
		}
		return t.AccessToken.Reveal(), nil
	}
	set.DropToken = func(identity, token string) { source.Drop(identity, oauth.NewSecret(token)) }
}

// tokenError tells an upstream client whose fault a missing token is; see upstream.TokenError.
type tokenError struct {
	error
	upstream string
}

func (e tokenError) Unwrap() error { return e.error }

// Class implements upstream.TokenError.
func (e tokenError) Class() mail.Class {
	if known, ok := errors.AsType[*oauth.Error](e.error); ok {
		return known.Class
	}
	return mail.BackPressure
}

// Reply implements upstream.TokenError. What it says is made for people, and has no secret in it.
func (e tokenError) Reply() mail.Reply {
	if known, ok := errors.AsType[*oauth.Error](e.error); ok {
		return mail.R(454, "4.7.0", "no access token for upstream %s: %s", e.upstream, known.Error())
	}
	return mail.R(454, "4.7.0", "no access token for upstream %s now", e.upstream)
}

// Error has the words of Reply without what is known anyway.
func (e tokenError) Error() string {
	if known, ok := errors.AsType[*oauth.Error](e.error); ok {
		return known.Error()
	}
	return "there is none now"
}

// RetryAfter is how long the source will answer the same without asking.
func (e tokenError) RetryAfter() time.Duration {
	if known, ok := errors.AsType[*oauth.Error](e.error); ok && !known.Retry.IsZero() {
		return max(time.Until(known.Retry), 0)
	}
	return 0
}

// upkeep keeps what an upstream is logged in with by OAuth alive, and warns of its end.
type upkeep struct {
	source *oauth.Source
	name   string // of the upstream
	log    *slog.Logger
	stop   context.CancelFunc // nil until run
	done   chan struct{}
	mu     sync.Mutex // guards stop
}

// run keeps an idle consent alive until close.
func (u *upkeep) run() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	u.stop, u.done = stop, make(chan struct{})
	go func() { // waited for in close
		defer close(u.done)
		var rest sync.WaitGroup
		rest.Go(func() { u.warn(ctx) })
		_ = u.source.Run(ctx) // never fails
		rest.Wait()
	}()
}

// expiryPeriod is how often the log warns that a secret, a certificate or a consent is about to end.
const expiryPeriod = 24 * time.Hour

// warn says at the start, and each day, what ends within 30 days.
func (u *upkeep) warn(ctx context.Context) {
	tick := time.NewTicker(expiryPeriod)
	defer tick.Stop()
	for {
		_ = u.source.Load(ctx) // what is wrong with a grant is told to those who need it
		for _, e := range u.source.Expiries(time.Now()) {
			if e.Soon {
				u.log.Warn("what the upstream is logged in with ends", "upstream", u.name, "what", e.What, "at", e.At,
					"estimated", e.Estimated, "fix", e.Fix)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (u *upkeep) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stop == nil {
		u.source.Close()
		return
	}
	u.stop()
	<-u.done
}
