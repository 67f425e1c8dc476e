package keyring

import (
	"context"
	"fmt"

	"postern/mail"
	"postern/relay/sign"
)

// Answer is what DNS has under a DKIM selector.
type Answer struct {
	Resolver    []string // TXT records, each with its strings joined, as the system's resolver has them
	ResolverErr error    // nil where there is an answer, also that there is nothing
	Servers     []Server // of the zone; none where they could not be found
}

// Server is what one server of the zone has.
type Server struct {
	Name  string
	Texts []string
	CNAME bool  // it leads to another zone, whose servers nobody asked
	Err   error // nil where there is an answer, also that there is nothing
}

// Lookup asks DNS.
type Lookup interface {
	// DKIM returns the record of a selector, by the resolver and by every server of the zone. An error means that
	// nothing could be asked.
	DKIM(ctx context.Context, domain, selector string) (Answer, error)
}

// Judge says whether the world sees the record of a key: the resolver and all servers of the zone that answer have it,
// alone, and a signature of the key verifies by it. Where no server of the zone can be asked, the resolver decides.
func Judge(a Answer, key sign.Key) (Found, string) {
	resolver, why := one(a.Resolver, a.ResolverErr, key)
	found, detail := resolver, ""
	if resolver != Seen && resolver != Unknown {
		detail = "the resolver " + why
	}
	for _, s := range a.Servers {
		if s.CNAME && len(s.Texts) == 0 {
			continue
		}
		if f, why := one(s.Texts, s.Err, key); f == Absent || f == Differs {
			return f, mail.Printable(mail.Cut(s.Name, 100)) + " " + why
		} else if f == Seen && resolver == Absent {
			detail = "the zone has it, but the resolver still says that there is none"
		}
	}
	return found, detail
}

// one judges what one server has.
func one(texts []string, err error, key sign.Key) (found Found, why string) {
	switch {
	case err != nil:
		return Unknown, ""
	case len(texts) == 0:
		return Absent, "has no record"
	case len(texts) > 1:
		return Differs, fmt.Sprintf("has %d records; there may be one", len(texts))
	}
	if err := key.Verify(texts[0]); err != nil {
		return Differs, fmt.Sprintf("has another record (%s): %s", mail.Printable(mail.Cut(texts[0], 60)),
			mail.Printable(mail.Cut(err.Error(), 120)))
	}
	return Seen, ""
}
