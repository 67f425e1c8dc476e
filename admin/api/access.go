package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"postern/admin/access"
	"postern/operate"
	"postern/relay/store"
)

// accessAPI serves who may use the console and the API.
type accessAPI struct{ access *access.Access }

func accessRoutes(s *server) []route {
	a := accessAPI{s.Access}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/tokens", id: "tokens", tag: "Access",
			needs: []operate.Operation{operate.ListTokens}, summary: "The tokens of programs",
			about: "What a token is made of is known to whoever has it: the store has its hash."}, a.tokens),
		handle(s, route{method: http.MethodPost, path: "/tokens", id: "token-add", tag: "Access", once: true,
			needs: []operate.Operation{operate.AddToken}, status: http.StatusCreated, faults: []kind{conflict},
			summary: "Make a token", about: "It is in the answer, this once."}, a.addToken),
		handle(s, route{method: http.MethodDelete, path: "/tokens/{name}", id: "token-revoke", tag: "Access",
			needs: []operate.Operation{operate.RevokeToken}, status: http.StatusNoContent, faults: []kind{notFound},
			summary: "Revoke a token"}, a.revoke),
		handle(s, route{method: http.MethodGet, path: "/users", id: "users", tag: "Access",
			needs: []operate.Operation{operate.ListConsoleUsers}, summary: "Who may use the console"}, a.users),
		handle(s, route{method: http.MethodPost, path: "/users", id: "user-invite", tag: "Access", once: true,
			needs: []operate.Operation{operate.InviteUser}, status: http.StatusCreated, faults: []kind{conflict},
			summary: "Invite somebody into the console",
			about:   "The link in the answer works once, for a quarter of an hour."}, a.invite),
		handle(s, route{method: http.MethodPatch, path: "/users/{name}", id: "user-edit", tag: "Access",
			needs:  []operate.Operation{operate.ChangeRole, operate.DisableUser},
			faults: []kind{notFound, conflict}, status: http.StatusNoContent,
			summary: "Change the role of somebody, or let them in no more"}, a.edit),
		handle(s, route{method: http.MethodDelete, path: "/users/{name}", id: "user-remove", tag: "Access",
			needs: []operate.Operation{operate.RemoveUser}, faults: []kind{notFound, conflict},
			status: http.StatusNoContent, summary: "Remove somebody from the console"}, a.remove),
	}
}

// Token is a token without what it is made of.
type Token struct {
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`
	Networks  []string  `json:"networks"`
	Expires   time.Time `json:"expires,omitzero" doc:"Without it, never."`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	Used      time.Time `json:"last_used,omitzero"`
}

// Tokens are all tokens.
type Tokens struct {
	Tokens []Token `json:"tokens"`
}

func (a accessAPI) tokens(ctx context.Context, by operate.Actor, _ *none) (*shown[Tokens], error) {
	list, err := a.access.Tokens.List(ctx, by)
	if err != nil {
		return nil, err
	}
	out := Tokens{make([]Token, len(list))}
	for i, t := range list {
		out.Tokens[i] = Token{Name: t.Name, Scopes: t.Scopes, Networks: []string{}, Expires: t.Expires,
			Created: t.Created, CreatedBy: t.CreatedBy, Used: t.Used}
		for _, n := range t.Networks {
			out.Tokens[i].Networks = append(out.Tokens[i].Networks, n.String())
		}
	}
	return &shown[Tokens]{out}, nil
}

type newToken struct {
	Body struct {
		Name     string          `json:"name" minLength:"1" maxLength:"100"`
		Scopes   []operate.Scope `json:"scopes" enum:"read,queue,accounts,admin" minItems:"1" maxItems:"4"`
		Networks []string        `json:"networks,omitempty" maxItems:"100" doc:"Where it may be used; else anywhere."`
		Expires  time.Time       `json:"expires,omitzero"`
	}
}

// NewToken is a token that was made just now.
type NewToken struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

func (a accessAPI) addToken(ctx context.Context, by operate.Actor, in *newToken) (*made[NewToken], error) {
	networks, err := operate.ParseNetworks(in.Body.Networks)
	if err != nil {
		return nil, invalid.problem(err.Error())
	}
	token, err := a.access.Tokens.Add(ctx, by, access.NewToken{Name: in.Body.Name, Scopes: in.Body.Scopes,
		Networks: networks, Expires: in.Body.Expires})
	if err != nil {
		return nil, err
	}
	return &made[NewToken]{Prefix + "/tokens/" + url.PathEscape(in.Body.Name), NewToken{in.Body.Name, token}}, nil
}

type ofName struct {
	Name string `path:"name" maxLength:"320"`
}

func (a accessAPI) revoke(ctx context.Context, by operate.Actor, in *ofName) (*struct{}, error) {
	err := a.access.Tokens.Revoke(ctx, by, in.Name)
	if errors.Is(err, store.ErrNoToken) {
		return nil, notFound.problem("There is no such token.")
	}
	return nil, err
}

// User is somebody who may use the console.
type User struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Disabled  bool      `json:"disabled"`
	Invited   bool      `json:"invited" doc:"The link was not used yet."`
	Passkeys  int       `json:"passkeys"`
	TOTP      bool      `json:"totp"`
	Provider  string    `json:"provider,omitempty" doc:"Of who logs in by OpenID Connect."`
	Created   time.Time `json:"created"`
	LastLogin time.Time `json:"last_login,omitzero"`
}

// Users are all of them.
type Users struct {
	Users []User `json:"users"`
}

func (a accessAPI) users(ctx context.Context, by operate.Actor, _ *none) (*shown[Users], error) {
	list, err := a.access.Users.List(ctx, by)
	if err != nil {
		return nil, err
	}
	out := Users{make([]User, len(list))}
	for i, u := range list {
		out.Users[i] = User{Name: u.Name, Role: u.Role, Disabled: u.Disabled, Invited: u.Hash == "" && u.Provider == "",
			Passkeys: len(u.Passkeys), TOTP: u.TOTP != "", Provider: u.Provider, Created: u.Created,
			LastLogin: u.LastLogin}
	}
	return &shown[Users]{out}, nil
}

type invitation struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"320"`
		Role string `json:"role" enum:"viewer,helpdesk,operator,admin"`
	}
}

// Invitation is a link into the console.
type Invitation access.Link

func (a accessAPI) invite(ctx context.Context, by operate.Actor, in *invitation) (*made[Invitation], error) {
	role, err := operate.ParseRole(in.Body.Role)
	if err != nil {
		return nil, invalid.problem(err.Error())
	}
	link, err := a.access.Users.Invite(ctx, by, in.Body.Name, role)
	if err != nil {
		return nil, err
	}
	return &made[Invitation]{Prefix + "/users/" + url.PathEscape(link.Name), Invitation(link)}, nil
}

type userEdit struct {
	Name string `path:"name" maxLength:"320"`
	Body struct {
		Role     string `json:"role,omitempty" enum:"viewer,helpdesk,operator,admin"`
		Disabled *bool  `json:"disabled,omitempty"`
	}
}

func (a accessAPI) edit(ctx context.Context, by operate.Actor, in *userEdit) (*struct{}, error) {
	if in.Body.Role == "" && in.Body.Disabled == nil {
		return nil, invalid.problem("There is nothing to change: give role or disabled.")
	}
	if in.Body.Role != "" {
		role, err := operate.ParseRole(in.Body.Role)
		if err != nil {
			return nil, invalid.problem(err.Error())
		}
		if err := a.access.Users.SetRole(ctx, by, in.Name, role); err != nil {
			return nil, of(err)
		}
	}
	if in.Body.Disabled != nil {
		if err := a.access.Users.Disable(ctx, by, in.Name, *in.Body.Disabled); err != nil {
			return nil, of(err)
		}
	}
	return nil, nil
}

func (a accessAPI) remove(ctx context.Context, by operate.Actor, in *ofName) (*struct{}, error) {
	return nil, of(a.access.Users.Remove(ctx, by, in.Name))
}

// of makes a problem of what is known of users.
func of(err error) error {
	if errors.Is(err, store.ErrNoConsoleUser) {
		return notFound.problem("There is nobody of that name.")
	}
	return err
}
