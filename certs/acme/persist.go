package acme

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	protocol "github.com/mholt/acmez/v3/acme"

	"postern/mail"
)

// Record is a DNS record that a person publishes once.
type Record struct {
	Name  string `json:"name"` // without a dot at its end
	Type  string `json:"type"` // TXT, CNAME
	Value string `json:"value"`
}

// maxIssuers bounds the names by which a CA knows itself.
const maxIssuers = 10

func issuersKey(directory string) string { return accountPrefix(directory) + "issuers.json" }

// rememberIssuers keeps by which names the CA knows itself in records of dns-persist-01.
func (o *Options) rememberIssuers(ctx context.Context, names []string) error {
	names = plainNames(names)
	if len(names) == 0 {
		return fmt.Errorf("the CA offers dns-persist-01 and names no issuer for the record")
	}
	if slices.Equal(o.issuers(ctx), names) {
		return nil
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return o.Storage.Store(ctx, issuersKey(o.Directory), data)
}

// plainNames drops what is no domain: it would end in a record that a person copies.
func plainNames(names []string) []string {
	var plain []string
	for _, n := range names {
		if d, err := mail.ParseDomain(n); err == nil && !strings.HasPrefix(d, "[") && len(plain) < maxIssuers {
			plain = append(plain, d)
		}
	}
	return plain
}

// issuers are the remembered names; nil: none yet.
func (o *Options) issuers(ctx context.Context) (names []string) {
	if data, err := o.Storage.Load(ctx, issuersKey(o.Directory)); err == nil {
		_ = json.Unmarshal(data, &names) // damaged: the CA says it again
	}
	return names
}

// PersistRecords are the records that dns-persist-01 needs, one for each name. The account is registered if there is
// none yet, since its address is part of them.
func PersistRecords(ctx context.Context, o Options) ([]Record, error) {
	o = New(o).options
	c := o.client(&attempt{})
	account, err := o.account(ctx, c)
	if err != nil {
		return nil, err
	}
	issuers := o.issuers(ctx)
	if len(issuers) == 0 {
		dir, err := c.GetDirectory(ctx)
		if err != nil {
			return nil, err
		}
		if dir.Meta != nil {
			issuers = plainNames(dir.Meta.CAAIdentities)
		}
	}
	if len(issuers) == 0 {
		return nil, fmt.Errorf("the CA does not say by which name it knows itself: let postern serve try once with " +
			"dns-persist-01 in challenges, which asks it")
	}
	var records []Record
	for _, name := range o.Names {
		records = append(records, persistRecord(account, issuers[0], name))
	}
	return records, nil
}

func persistRecord(account protocol.Account, issuer, name string) Record {
	c := protocol.Challenge{Identifier: protocol.Identifier{Type: "dns", Value: name}}
	return Record{c.DNSPersist01TXTRecordName(), "TXT",
		mail.Printable(c.DNSPersist01TXTRecordValue(account, issuer, false))}
}

// missingRecord says which record the CA wants to see, and whether this machine sees it.
func (i *issuer) missingRecord(ctx context.Context, account protocol.Account, c protocol.Challenge, err error) error {
	issuers := plainNames(c.IssuerDomainNames)
	if len(issuers) == 0 {
		return err
	}
	want := persistRecord(account, issuers[0], c.Identifier.Value)
	seen := ""
	if i.o.TXT != nil {
		texts, lookErr := i.o.TXT(ctx, want.Name)
		switch {
		case lookErr != nil || len(texts) == 0:
			seen = "; this machine sees no TXT record there either"
		case slices.ContainsFunc(texts, func(t string) bool { return sameRecord(t, account.Location, issuers) }):
			seen = "; this machine sees it: ask again later, the CA may still remember the name without it"
		default:
			seen = fmt.Sprintf("; this machine sees another one there: %.200q", texts[0])
		}
	}
	return &hint{fmt.Sprintf("dns-persist-01 for %s failed: publish %s TXT %q%s", c.Identifier.Value, want.Name,
		want.Value, seen), err}
}

// sameRecord reports whether a record names one of the issuers and the account (RFC 8659 §4.2).
func sameRecord(text, account string, issuers []string) bool {
	parts := strings.Split(text, ";")
	if !slices.Contains(issuers, strings.ToLower(strings.TrimSpace(parts[0]))) {
		return false
	}
	return slices.ContainsFunc(parts[1:], func(p string) bool {
		key, value, _ := strings.Cut(p, "=")
		return strings.EqualFold(strings.TrimSpace(key), "accounturi") && strings.TrimSpace(value) == account
	})
}
