package relay

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/seal"
	relaystore "postern/relay/store"
	"postern/relay/upstream"
	"postern/relay/upstream/oauth"
)

// NewTokens makes the source of access tokens for a block with [upstream.oauth]; nil for one without. grants is where
// consents are kept, sealed with the key in data_dir, which is made where it is missing.
func NewTokens(c *config.Config, block config.Upstream, grants oauth.GrantStore, log *slog.Logger) (*oauth.Source, error) {
	if block.OAuth == nil {
		return nil, nil
	}
	sealer := (*seal.Sealer)(nil)
	if block.OAuth.Flow.Delegated() {
		var err error
		if sealer, err = relaystore.OpenSealer(c.DataDir); err != nil {
			return nil, fmt.Errorf("upstream %s: oauth: %w", block.Name, err)
		}
	}
	return newTokens(block, c.SendsForOthers(&block), grants, sealer, log)
}

// CheckTokens says what NewTokens would refuse, without making anything.
func CheckTokens(block config.Upstream) error {
	_, err := expiriesOf(block, time.Time{})
	return err
}

// expiriesOf tells what an upstream is logged in with and when it ends, as far as relay.toml and its files say.
func expiriesOf(block config.Upstream, now time.Time) ([]oauth.Expiry, error) {
	if block.OAuth == nil {
		return nil, nil
	}
	sealer, err := seal.New(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	source, err := newTokens(block, false, oauth.NewMemoryGrants(), sealer, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer source.Close()
	return source.Expiries(now), nil
}

func newTokens(block config.Upstream, others bool, grants oauth.GrantStore, sealer *seal.Sealer, log *slog.Logger) (*oauth.Source, error) {
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

// anchors reads ca_file: whoever inspects or serves TLS in this network does so for the login service too.
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

// tokenError tells an upstream client whose matter a missing token is; see upstream.TokenError.
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

// tokens is what an upstream with OAuth has beside its client.
type tokens struct {
	source *oauth.Source
	name   string // of the upstream
	log    *slog.Logger
	stop   context.CancelFunc // nil until run
	done   chan struct{}
	mu     sync.Mutex // guards stop
}

// run keeps an idle consent alive until close.
func (t *tokens) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	t.stop, t.done = stop, make(chan struct{})
	go func() { // waited for in close
		defer close(t.done)
		var rest sync.WaitGroup
		rest.Go(func() { t.warn(ctx) })
		_ = t.source.Run(ctx) // never fails
		rest.Wait()
	}()
}

// expiryPeriod is how often a person is told that a secret, a certificate or a consent comes to its end.
const expiryPeriod = 24 * time.Hour

// warn says at the start, and each day, what ends within 30 days.
func (t *tokens) warn(ctx context.Context) {
	tick := time.NewTicker(expiryPeriod)
	defer tick.Stop()
	for {
		_ = t.source.Load(ctx) // what is wrong with a grant is told to those who need it
		for _, e := range t.source.Expiries(time.Now()) {
			if e.Soon {
				t.log.Warn("what the upstream is logged in with ends", "upstream", t.name, "what", e.What, "at", e.At, "estimated", e.Estimated, "fix", e.Fix)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// grantsChanged asks again for what waits because of a grant: a person may have logged in.
func (s *Server) grantsChanged() {
	for _, up := range s.state.Load().upstreams {
		if up.tokens != nil {
			up.TryAgain()
		}
	}
}

func (t *tokens) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop == nil {
		t.source.Close()
		return
	}
	t.stop()
	<-t.done
}

// runTokens starts what a state that is in force needs beside its upstreams.
func (st *state) runTokens() {
	for _, up := range st.upstreams {
		if up.tokens != nil {
			up.tokens.run()
		}
	}
}

// Close ends the upstream, and then what gives it tokens.
func (c *configured) Close(ctx context.Context) error {
	err := c.transport.Close(ctx)
	if c.tokens != nil {
		c.tokens.close()
	}
	return err
}

// ownIdentity returns the mailbox that a message is sent from where identity = "sender": its reverse-path, and for a null
// reverse-path its header author. Policy has judged both. "" is the configured username.
func (c *configured) ownIdentity(m *queue.Message) string {
	if !c.config.SendsAsSender() {
		return ""
	}
	from := m.Envelope.From
	if from.IsNull() {
		from = m.Author
	}
	// A report of ours goes as the username, if there is one.
	if from.IsNull() || m.Login == "" && m.Envelope.From.IsNull() && c.config.Username != "" {
		return ""
	}
	identity := strings.ToLower(from.String()) // one mailbox, one pool: providers do not tell case apart
	if identity == strings.ToLower(c.config.Username) {
		return ""
	}
	return identity
}

// identityFor returns who the upstream is told we are for a message; "" is the configured username.
func (c *configured) identityFor(m *queue.Message) string {
	own := c.ownIdentity(m)
	if own != "" && c.homeless.has(own, time.Now()) {
		return ""
	}
	return own
}

// keyFor names what a message waits for at an upstream.
func (c *configured) keyFor(identity string) string {
	if identity == "" {
		return c.config.Name
	}
	return c.config.Name + " as " + identity
}

// Bounds of homeless. A mailbox that was made in the meantime is found after a day.
const (
	maxHomeless  = 10_000
	homelessLife = 24 * time.Hour
)

// homeless remembers the addresses that the provider has no mailbox for, and whose mail goes as username.
type homeless struct {
	mu    sync.Mutex // guards known
	known *simplelru.LRU[string, time.Time]
}

func newHomeless() *homeless {
	known, _ := simplelru.NewLRU[string, time.Time](maxHomeless, nil) // fails for a size below 1 only
	return &homeless{known: known}
}

func (h *homeless) has(identity string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, ok := h.known.Get(identity)
	if ok && !now.Before(until) {
		h.known.Remove(identity)
		return false
	}
	return ok
}

// add reports whether the identity is new. One that is known keeps its time, so that it ends.
func (h *homeless) add(identity string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until, ok := h.known.Get(identity); ok && now.Before(until) {
		return false
	}
	h.known.Add(identity, now.Add(homelessLife))
	return true
}

func (h *homeless) remove(identity string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.Remove(identity)
}

// loginRefused reports that the provider did not let the identity in, or gave no token for it, and that nothing was sent.
func loginRefused(results []mail.Result) bool {
	for _, r := range results {
		if r.Class != mail.AccountFault || r.Stage != mail.StageAuth || r.Uncertain {
			return false
		}
	}
	return len(results) > 0
}
