package access

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

// OIDCPath is where the provider sends browsers back to, unless OIDC.RedirectURL says otherwise.
const OIDCPath = "/login/oidc"

// SSO is logins by OpenID Connect.
type SSO struct{ *core }

// OIDC is a provider of OpenID Connect that vouches for people.
type OIDC struct {
	Provider                            // RedirectURL "": the console's URL with OIDCPath
	NameClaim   string                  // "": preferred_username, else email, else sub
	GroupsClaim string                  // "": groups
	Roles       map[string]operate.Role // of groups; of several the highest counts
}

// console is a provider of the console's users.
type console struct {
	*provider
	options OIDC
}

// newConsole keeps what is known of the provider where it is the same as before.
func newConsole(o OIDC, base *url.URL, now func() time.Time, before *console) *console {
	o.RedirectURL = cmp.Or(o.RedirectURL, base.JoinPath(OIDCPath).String())
	o.GroupsClaim = cmp.Or(o.GroupsClaim, "groups")
	c := &console{options: o}
	if before != nil {
		c.provider = before.provider
	}
	c.provider = newProvider(o.Provider, now, c.provider)
	return c
}

// Begin returns where to send a browser that wants to log in, and a cookie for Finish. next is the page that it
// wants afterwards. With a session, the provider is told to ask for the login again.
func (a SSO) Begin(ctx context.Context, s *Session, next string) (to, cookie string, err error) {
	p := a.inUse.Load().oidc
	if p == nil {
		return "", "", refusef(ReasonOIDC, "there is no [admin.oidc]")
	}
	f := flow{Next: LocalPath(next)}
	if s != nil {
		f.Bound, f.Name = s.digest[:], s.Name
	}
	if to, err = p.begin(ctx, &f, s != nil); err != nil {
		return "", "", err
	}
	cookie, err = a.sealFlow(f)
	return to, cookie, err
}

// Finish takes what the provider sent the browser back with. s is the session that the browser has, nil: none. It
// returns what the browser is to keep as cookie, and the page that it wants.
func (a SSO) Finish(ctx context.Context, s *Session, cookie string, query url.Values, client string) (token,
	next string, err error) {
	p := a.inUse.Load().oidc
	if p == nil {
		return "", "", refusef(ReasonOIDC, "there is no [admin.oidc]")
	}
	f, err := a.openFlow(flowOIDC, cookie)
	if err != nil {
		return "", "", err
	}
	claims, err := p.claims(ctx, f, query, p.options.GroupsClaim)
	var name string
	if err == nil {
		name, err = p.name(claims)
	}
	who := operate.Actor{Name: name, Channel: operate.Console, Client: client}
	if err == nil {
		err = a.endFlow(ctx, f)
	}
	var u store.ConsoleUser
	if err == nil {
		u, err = a.upsert(ctx, p, name, claims)
	}
	if err == nil && f.Bound != nil {
		token, err = a.stepUp(ctx, s, f, u, claims, client)
		return token, f.Next, err
	}
	if err != nil {
		a.auditFailure(ctx, who, opLogin, err)
		return "", "", err
	}
	token, err = a.enter(ctx, u, who, claims.fresh(a.now()), "OpenID Connect")
	return token, f.Next, err
}

// stepUp makes a session stronger whose owner has just logged in at the provider again.
func (a SSO) stepUp(ctx context.Context, s *Session, f flow, u store.ConsoleUser, c Claims, client string) (
	string, error) {
	if s == nil || !bytes.Equal(f.Bound, s.digest[:]) {
		return "", refusef(ReasonFlow, "the cookie is of another session")
	}
	who := s.Actor(client, a.now())
	var err error
	switch {
	case u.Name != s.Name:
		err = refusef(ReasonOIDC, "%s logged in at the provider", u.Name)
	case !c.fresh(a.now()):
		err = refusef(ReasonNotFresh, "auth_time is %s", c.authTime().UTC().Format(time.RFC3339))
	}
	if err != nil {
		a.auditFailure(ctx, who, opStepUp, err)
		return "", err
	}
	return a.stronger(ctx, s, u, who)
}

// name is what the console calls somebody.
func (p *console) name(c Claims) (string, error) {
	name := cmp.Or(c.Text(p.options.NameClaim), c.Text("preferred_username"), c.Text("email"), c.Subject)
	normal, ok := auth.NormalizeLogin("oidc:" + name)
	if !ok || name == "" {
		return "", refusef(ReasonOIDC, "%q is no name that can be shown", name)
	}
	return normal, nil
}

// roleFor is the highest role that one of the groups has.
func (p *console) roleFor(groups []string) (role operate.Role) {
	for _, g := range groups {
		role = max(role, p.options.Roles[g])
	}
	return role
}

// upsert notes who logs in by OpenID Connect as a user of the console. The subject is who they are; a name that
// another subject had does not become theirs. Another role than before ends the open sessions, and so does none.
func (a SSO) upsert(ctx context.Context, p *console, name string, c Claims) (user store.ConsoleUser, err error) {
	groups := c.Texts(p.options.GroupsClaim)
	role := p.roleFor(groups)
	var refused error
	err = a.store.ChangeConsoleUser(ctx, name, func(u *store.ConsoleUser, exists bool, _ []store.ConsoleUser) (bool,
		error) {
		refused = nil
		switch {
		case exists && (u.Provider != p.Issuer || u.Subject != c.Subject):
			return false, refusef(ReasonOIDCName, "%s is subject %q of %s; if that is right, run: postern console "+
				"remove %s",
				name, u.Subject, u.Provider, name)
		case exists && u.Disabled:
			return false, refuse(ReasonDisabled, nil)
		case role == operate.Nobody && !exists:
			return false, refuseGroups(c, groups)
		case !exists:
			u.Provider, u.Subject, u.Created = p.Issuer, c.Subject, a.now()
		}
		if role == operate.Nobody {
			refused = refuseGroups(c, groups)
		} else {
			u.LastLogin = a.now()
		}
		if u.Role != role.String() {
			u.Role, u.Generation = role.String(), u.Generation+1
		}
		user = *u
		return true, nil
	})
	return user, errors.Join(err, refused)
}

func refuseGroups(c Claims, groups []string) error {
	return refuse(ReasonOIDCGroups, fmt.Errorf("subject %q has %d groups, none of which is in [admin.oidc] roles",
		c.Subject, len(groups)))
}
