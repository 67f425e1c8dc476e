package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	protocol "github.com/mholt/acmez/v3/acme"
)

// issuer is certmagic's way to a CA. certmagic's own knows three challenges and has an account of its own for itself;
// this one has one account for all four, bounds what the CA says, and leaves waiting to State (decision 0034).
type issuer struct {
	o   *Options
	key Key
	at  *attempt
}

var (
	_ certmagic.Issuer            = (*issuer)(nil)
	_ certmagic.RenewalInfoGetter = (*issuer)(nil)
)

// issuerKey names a CA's directory in storage, for one kind of key.
func issuerKey(directory string, key Key) string {
	name := directory
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		name = u.Host + strings.ReplaceAll(strings.TrimSuffix(u.Path, "/"), "/", "-")
	}
	if key != ECDSA {
		name += "-" + string(key)
	}
	return name
}

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return issuerKey(i.o.Directory, i.key) }

// GetRenewalInfo implements certmagic.RenewalInfoGetter (RFC 9773).
func (i *issuer) GetRenewalInfo(ctx context.Context, cert certmagic.Certificate) (protocol.RenewalInfo, error) {
	return i.o.client(i.at).GetRenewalInfo(ctx, cert.Leaf)
}

// Issue implements certmagic.Issuer: one order, from the account to the certificate. Order of steps: account, order,
// authorizations, challenge, finalization, download (RFC 8555 §7.1).
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	issued, err := i.issue(ctx, csr)
	i.at.err = err
	return issued, err
}

func (i *issuer) issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	c := i.o.client(i.at)
	account, err := i.o.account(ctx, c)
	if err != nil {
		return nil, err
	}
	order := protocol.Order{Profile: i.o.Profile, Replaces: i.replaces(ctx, csr)}
	for _, name := range csr.DNSNames {
		order.Identifiers = append(order.Identifiers, protocol.Identifier{Type: "dns", Value: name})
	}
	if i.at.begin != nil {
		if err := i.at.begin(); err != nil {
			return nil, err
		}
	}
	i.at.ordered = true
	if order, err = newOrder(ctx, c, account, order); err != nil {
		return nil, fmt.Errorf("order a certificate: %w", err)
	}
	if len(order.Authorizations) > maxAuthorizations {
		return nil, fmt.Errorf("the CA wants %d authorizations for %d names", len(order.Authorizations),
			len(csr.DNSNames))
	}
	for _, where := range order.Authorizations {
		if err := i.authorize(ctx, c, account, where, csr.DNSNames); err != nil {
			return nil, err
		}
	}
	if order, err = c.FinalizeOrder(ctx, account, order, csr.Raw); err != nil {
		return nil, fmt.Errorf("finalize the order: %w", err)
	}
	chains, err := c.GetCertificateChain(ctx, account, order.Certificate)
	if err != nil {
		return nil, fmt.Errorf("download the certificate: %w", err)
	}
	if len(chains) == 0 {
		return nil, errors.New("the CA sent no certificate")
	}
	if err := checkIssued(chains[0].ChainPEM, csr, time.Now()); err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: chains[0].ChainPEM, Metadata: chains[0]}, nil
}

// maxAuthorizations bounds an order, which is for one name.
const maxAuthorizations = 2

// newOrder orders, and again without naming the certificate to be replaced if the CA has it replaced already.
func newOrder(ctx context.Context, c *protocol.Client, account protocol.Account,
	order protocol.Order) (protocol.Order, error) {
	made, err := c.NewOrder(ctx, account, order)
	p, ok := errors.AsType[protocol.Problem](err)
	if order.Replaces == "" || !ok || p.Type == protocol.ProblemTypeRateLimited || p.Status >= 500 {
		return made, err
	}
	order.Replaces = ""
	return c.NewOrder(ctx, account, order)
}

// replaces names the certificate that the new one is instead of, which spares it the CA's limits (RFC 9773 §5).
func (i *issuer) replaces(ctx context.Context, csr *x509.CertificateRequest) string {
	if len(csr.DNSNames) != 1 {
		return ""
	}
	before, err := i.o.pair(ctx, csr.DNSNames[0], i.key)
	if err != nil {
		return ""
	}
	id, err := protocol.ARIUniqueIdentifier(before.Leaf)
	if err != nil {
		return ""
	}
	dir, err := i.o.client(i.at).GetDirectory(ctx)
	if err != nil || dir.RenewalInfo == "" {
		return ""
	}
	return id
}

// authorize proves that a name is ours.
func (i *issuer) authorize(ctx context.Context, c *protocol.Client, account protocol.Account, where string,
	names []string) error {
	authz, err := c.GetAuthorization(ctx, account, where)
	if err != nil {
		return fmt.Errorf("ask for the challenges: %w", err)
	}
	name := authz.Identifier.Value
	if authz.Identifier.Type != "dns" || authz.Wildcard || !slices.Contains(names, name) {
		return fmt.Errorf("the CA wants proof for %q, for which nothing was ordered", name)
	}
	if authz.Status == protocol.StatusValid {
		return nil
	}
	challenge, err := i.choose(authz)
	if err != nil {
		return err
	}
	solve, err := i.solver(challenge, account)
	if err != nil {
		return err
	}
	cleanUp, err := solve(ctx)
	if err == nil {
		err = i.validate(ctx, c, account, authz, challenge)
	}
	cleanUp()
	if err == nil {
		return nil
	}
	// What is left pending counts against the account's limits.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if authz, gone := c.GetAuthorization(late, account, where); gone == nil && authz.Status == protocol.StatusPending {
		_, _ = c.DeactivateAuthorization(late, account, where) // it ends by itself within days
	}
	if _, told := errors.AsType[*hint](err); told {
		return err
	}
	return &hint{fmt.Sprintf("%s for %s failed", challenge.Type, name), err}
}

// validate has the CA look.
func (i *issuer) validate(ctx context.Context, c *protocol.Client, account protocol.Account,
	authz protocol.Authorization, challenge protocol.Challenge) error {
	if _, err := c.InitiateChallenge(ctx, account, challenge); err != nil {
		return err
	}
	_, err := c.PollAuthorization(ctx, account, authz)
	if err != nil && challenge.Type == Persist01 {
		return i.missingRecord(ctx, account, challenge, err)
	}
	return err
}

// choose takes the first challenge of ours that the CA offers.
func (i *issuer) choose(authz protocol.Authorization) (protocol.Challenge, error) {
	var offered []string
	for _, want := range i.o.Order {
		for _, c := range authz.Challenges {
			if c.Type == want {
				return c, checkChallenge(c)
			}
		}
	}
	for _, c := range authz.Challenges[:min(len(authz.Challenges), 10)] {
		offered = append(offered, c.Type)
	}
	return protocol.Challenge{}, &hint{text: fmt.Sprintf("the CA does not offer %s for %s, but %s: write one of these "+
		"as challenges in [tls.acme]", strings.Join(i.o.Order, " or "), authz.Identifier.Value,
		strings.Join(offered, ", "))}
}

// maxToken bounds a token, in octets. They have 43.
const maxToken = 256

// checkChallenge refuses tokens that are none (RFC 8555 §8.1: base64url), before they come near an address or a hook.
func checkChallenge(c protocol.Challenge) error {
	if c.Type == Persist01 {
		return nil // it has none
	}
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if c.Token == "" || len(c.Token) > maxToken ||
		strings.ContainsFunc(c.Token, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("the CA sent a token that is none: %.40q", c.Token)
	}
	return nil
}

// parseChain reads certificates in PEM form, and refuses what else is among them; nil for nothing.
func parseChain(text []byte) (chain []*x509.Certificate, err error) {
	for len(text) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a %.40q is among the certificates", block.Type)
		}
		if len(chain) == maxChain {
			return nil, fmt.Errorf("it has more than %d certificates", maxChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// maxChain bounds a chain, in certificates: mail programs refuse handshakes that are too long.
const maxChain = 10

// checkIssued refuses a certificate that is not what was ordered.
func checkIssued(text []byte, csr *x509.CertificateRequest, now time.Time) error {
	chain, err := parseChain(text)
	if err == nil && len(chain) == 0 {
		return errors.New("the CA sent no certificate")
	}
	if err != nil {
		return fmt.Errorf("the CA sent no certificate that can be read: %w", err)
	}
	leaf := chain[0]
	key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(csr.PublicKey) {
		return errors.New("the CA sent a certificate for another key")
	}
	for _, name := range csr.DNSNames {
		if err := leaf.VerifyHostname(name); err != nil {
			return fmt.Errorf("the CA sent a certificate for something else: %w", err)
		}
	}
	if !leaf.NotAfter.After(now) {
		return fmt.Errorf("the CA sent a certificate that ended on %s; look at this machine's clock (it says %s)",
			leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
