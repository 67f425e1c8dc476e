package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"postern/operate"
)

// appPasswordAPI serves the passwords that people have for their devices and programs.
type appPasswordAPI struct{ ops *operate.Operations }

func appPasswordRoutes(s *server) []route {
	a := appPasswordAPI{s.Operations}
	const path, tag = "/app-passwords", "App passwords"
	return []route{
		handle(s, route{method: http.MethodGet, path: path, id: "app-passwords", tag: tag,
			needs:   []operate.Operation{operate.SeeAppPasswords},
			summary: "App passwords, of one login or of all, in order of their logins"}, a.list),
		handle(s, route{method: http.MethodPost, path: path, id: "app-password-add", tag: tag, once: true,
			needs: []operate.Operation{operate.AddAppPassword}, status: http.StatusCreated,
			faults: []kind{notFound, conflict}, summary: "Make an app password of a login",
			about: "It is shown in this answer only. The password of the login stays."}, a.add),
		handle(s, route{method: http.MethodDelete, path: path + "/{login}/{id}", id: "app-password-revoke", tag: tag,
			needs: []operate.Operation{operate.RevokeAppPassword}, status: http.StatusNoContent,
			faults: []kind{notFound}, summary: "Revoke an app password", about: "Its open sessions end."}, a.revoke),
		handle(s, route{method: http.MethodDelete, path: path + "/{login}", id: "app-password-revoke-all", tag: tag,
			needs: []operate.Operation{operate.RevokeAppPassword}, faults: []kind{notFound},
			summary: "Revoke all app passwords of a login", about: "Their open sessions end."}, a.revokeAll),
		handle(s, route{method: http.MethodPost, path: path + "/{login}/forget", id: "app-password-forget", tag: tag,
			needs: []operate.Operation{operate.ReleaseLogin}, faults: []kind{notFound},
			summary: "Release a login that somebody has on the page of self-service",
			about: "It ends the app passwords. Whoever logs in to the page next as this login has it then: for " +
				"somebody who was renamed, and for a name that was given to somebody else."}, a.forget),
	}
}

type appPasswordPage struct {
	Page
	Login string `query:"login" maxLength:"320" doc:"Without it, those of all."`
}

// AppPasswords is a part of the app passwords.
type AppPasswords struct {
	AppPasswords []operate.AppPassword `json:"app_passwords"`
	Next         string                `json:"next,omitempty"`
}

func (a appPasswordAPI) list(ctx context.Context, by operate.Actor, in *appPasswordPage) (*listed[AppPasswords],
	error) {
	at, err := parseCursor("app-passwords", in.Cursor)
	if err != nil {
		return nil, err
	}
	all, err := a.ops.AppPasswords.List(ctx, by, in.Login)
	if err != nil {
		return nil, err
	}
	key := func(k operate.AppPassword) string { return k.Login + " " + k.ID }
	rows, last := pageOf(sorted(all, key), key, at, in.Limit)
	out := AppPasswords{append([]operate.AppPassword{}, rows...), cursor{"app-passwords", last}.String()}
	return &listed[AppPasswords]{nextPage(ctx, out.Next), out}, nil
}

type newAppPassword struct {
	Body struct {
		Login    string    `json:"login" minLength:"1" maxLength:"320"`
		Name     string    `json:"name" minLength:"1" maxLength:"100" doc:"Of the device or program that it is for."`
		Networks []string  `json:"networks,omitempty" maxItems:"100" doc:"Where it may be used; else anywhere."`
		Expires  time.Time `json:"expires,omitzero" doc:"Without it, as late as [self_service] max_age allows."`
	}
}

func (a appPasswordAPI) add(ctx context.Context, by operate.Actor, in *newAppPassword) (
	*made[operate.NewAppCredential], error) {
	b := in.Body
	c, err := a.ops.AppPasswords.Add(ctx, by, operate.NewAppPassword{Login: b.Login, Name: b.Name,
		Networks: b.Networks, Expires: b.Expires})
	if err != nil {
		return nil, err
	}
	return &made[operate.NewAppCredential]{Prefix + "/app-passwords/" + url.PathEscape(c.Login) + "/" +
		url.PathEscape(c.AppPassword.ID), c}, nil
}

type ofAppPassword struct {
	OfLogin
	ID string `path:"id" maxLength:"64"`
}

func (a appPasswordAPI) revoke(ctx context.Context, by operate.Actor, in *ofAppPassword) (*struct{}, error) {
	return nil, a.ops.AppPasswords.Revoke(ctx, by, in.Login, in.ID)
}

// Revoked is how many app passwords ended.
type Revoked struct {
	Revoked int `json:"revoked"`
}

func (a appPasswordAPI) revokeAll(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[Revoked], error) {
	n, err := a.ops.AppPasswords.RevokeAll(ctx, by, in.Login)
	return &shown[Revoked]{Revoked{n}}, err
}

type forgetLogin struct {
	OfLogin
	Body struct{}
}

func (a appPasswordAPI) forget(ctx context.Context, by operate.Actor, in *forgetLogin) (*shown[Revoked], error) {
	n, err := a.ops.AppPasswords.Forget(ctx, by, in.Login)
	return &shown[Revoked]{Revoked{n}}, err
}
