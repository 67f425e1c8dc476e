package graph

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"postern/mail"
)

// rights is what an access token of Entra's says of itself. Nothing is decided by it but what is worth trying and which
// advice fits: Graph decides. A token that cannot be read, or of a tenant that grants rights by Exchange's own roles,
// says nothing.
type rights struct {
	delegated bool     // of a person who has logged in (scp); else of an application (roles)
	granted   []string // such as Mail.Send
	person    string   // who has logged in, printable
	known     bool
}

// maxClaims bounds what is read of a token, in octets before base64.
const maxClaims = 32 << 10

func readRights(token string) rights {
	_, rest, ok := strings.Cut(token, ".")
	middle, _, signed := strings.Cut(rest, ".")
	if !ok || !signed || len(middle) > maxClaims {
		return rights{}
	}
	octets, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(middle, "="))
	if err != nil {
		return rights{}
	}
	var claims struct {
		Scopes    string   `json:"scp"`
		Roles     []string `json:"roles"`
		UPN       string   `json:"upn"`
		Name      string   `json:"unique_name"`
		Preferred string   `json:"preferred_username"`
	}
	if json.Unmarshal(octets, &claims) != nil {
		return rights{}
	}
	r := rights{known: true, delegated: claims.Scopes != "", granted: claims.Roles}
	if r.delegated {
		r.granted = strings.Fields(claims.Scopes)
	}
	for _, name := range []string{claims.UPN, claims.Preferred, claims.Name} {
		if r.person == "" {
			r.person = mail.Cut(mail.Printable(name), maxMessage)
		}
	}
	return r
}

// has reports one of several permissions.
func (r rights) has(names ...string) bool {
	return slices.ContainsFunc(r.granted, func(g string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, g) })
	})
}

// readsMail reports that Sent Items may be looked at.
func (r rights) readsMail() bool {
	return r.has("Mail.Read", "Mail.ReadBasic", "Mail.ReadBasic.All", "Mail.ReadWrite", "Mail.Read.Shared",
		"Mail.ReadBasic.Shared", "Mail.ReadWrite.Shared")
}
