package api

import (
	"context"
	"net/http"
	"net/url"

	"postern/auth"
	"postern/operate"
)

// maxTable bounds a table of accounts, in octets.
const maxTable = operate.MaxTable

// among is a list of accounts: all, or the devices.
type among struct {
	path, one, all, tag string
	of                  operate.Among
}

var (
	logins  = among{"/logins", "login", "logins", "Logins", operate.Everybody}
	devices = among{"/devices", "device", "devices", "Devices", operate.DevicesOnly}
)

func (s *server) accountRoutes(a among) []route {
	add := handle(s, a.route(http.MethodPost, "", "add", "Add a "+a.one, operate.AddAccount, conflict),
		func(ctx context.Context, by operate.Actor, in *shown[NewAccount]) (*made[operate.Credential], error) {
			c, err := s.add(ctx, by, a, in.Body)
			return &made[operate.Credential]{a.location(c.Login), c}, err
		})
	if a.of == operate.DevicesOnly {
		add = handle(s, a.route(http.MethodPost, "", "add", "Add a device", operate.AddAccount, conflict), s.addDevice)
	}
	list := a.route(http.MethodGet, "", "s", "The "+a.all+", in order of their names", operate.SeeAccounts)
	list.id = a.all
	get := a.route(http.MethodGet, "/{login}", "", "One "+a.one, operate.SeeAccounts, notFound)
	get.id = a.one
	return []route{
		handle(s, list, func(ctx context.Context, by operate.Actor, in *Page) (*listed[Accounts], error) {
			return s.accounts(ctx, by, a, in)
		}),
		handle(s, get, func(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[operate.Account], error) {
			return s.account(ctx, by, a, in.Login)
		}),
		add,
		handle(s, a.route(http.MethodPatch, "/{login}", "edit", "Change a "+a.one, operate.EditAccount, notFound, conflict),
			func(ctx context.Context, by operate.Actor, in *edit) (*shown[Edited], error) {
				return s.edit(ctx, by, a, in)
			}),
		handle(s, a.route(http.MethodDelete, "/{login}", "remove", "Remove a "+a.one, operate.RemoveAccount, notFound,
			conflict), func(ctx context.Context, by operate.Actor, in *OfLogin) (*struct{}, error) {
			return nil, s.Operations.Accounts.Remove(ctx, by, a.of, in.Login)
		}),
		handle(s, a.route(http.MethodPost, "/{login}/password", "password", "Give a "+a.one+" a new password",
			operate.NewPassword, notFound, conflict), func(ctx context.Context, by operate.Actor, in *newPassword) (
			*shown[operate.Credential], error) {
			c, err := s.Operations.Accounts.Password(ctx, by, a.of, in.Login, in.Body.Password)
			return &shown[operate.Credential]{c}, err
		}),
		handle(s, a.route(http.MethodPost, "/{login}/lock", "lock", "Lock a "+a.one, operate.LockAccount, notFound, conflict),
			func(ctx context.Context, by operate.Actor, in *lock) (*shown[operate.Account], error) {
				return s.lock(ctx, by, a, in)
			}),
		handle(s, a.route(http.MethodPost, "/{login}/unlock", "unlock", "Let a "+a.one+" in again", operate.Unlock, notFound,
			conflict), func(ctx context.Context, by operate.Actor, in *unlock) (*shown[Unlocked], error) {
			return s.unlockAccount(ctx, by, a, in.Login)
		}),
	}
}

// route describes an operation on accounts.
func (a among) route(method, path, verb, summary string, op operate.Operation, faults ...kind) route {
	r := route{method: method, path: a.path + path, id: a.one + "-" + verb, tag: a.tag, summary: summary,
		needs: []operate.Operation{op}, faults: faults}
	switch verb {
	case "add":
		r.status, r.once = http.StatusCreated, true
		r.about = "Without a password one is generated, and shown in this answer only."
	case "password":
		r.once, r.about = true, "Without a password one is generated, and shown in this answer only. Open sessions end."
	case "edit":
		r.about = "Each list is given whole by `set`, or changed by `add` and `remove`, or emptied by `clear`. The " +
			"password stays."
	case "remove":
		r.status, r.about = http.StatusNoContent, "Mail of it that waits stays in the queue."
	case "lock":
		r.about = "It may not log in until it is unlocked."
	case "unlock":
		r.about = "Ends its lock, and the lockouts of its name."
	}
	return r
}

func (a among) location(login string) string { return Prefix + a.path + "/" + url.PathEscape(login) }

// OfLogin names an account.
type OfLogin struct {
	Login string `path:"login" maxLength:"320"`
}

// Accounts is a part of the accounts.
type Accounts struct {
	Accounts []operate.Account `json:"accounts"`
	Next     string            `json:"next,omitempty"`
}

func (s *server) accounts(ctx context.Context, by operate.Actor, a among, in *Page) (*listed[Accounts], error) {
	at, err := parseCursor(a.all, in.Cursor)
	if err != nil {
		return nil, err
	}
	users, _, err := s.Operations.Accounts.List(ctx, by, a.of)
	if err != nil {
		return nil, err
	}
	login := func(u auth.User) string { return u.Login }
	rows, last := pageOf(sorted(users, login), login, at, in.Limit)
	out := Accounts{make([]operate.Account, len(rows)), cursor{a.all, last}.String()}
	for i, u := range rows {
		out.Accounts[i] = operate.ShownAccount(u)
	}
	return &listed[Accounts]{nextPage(ctx, out.Next), out}, nil
}

func (s *server) account(ctx context.Context, by operate.Actor, a among, login string) (*shown[operate.Account],
	error) {
	u, err := s.Operations.Accounts.Get(ctx, by, a.of, login)
	if err != nil {
		return nil, err
	}
	return &shown[operate.Account]{operate.ShownAccount(u)}, nil
}

// NewAccount is an account to be added.
type NewAccount struct {
	Login    string   `json:"login" minLength:"1" maxLength:"320"`
	Password string   `json:"password,omitempty" maxLength:"1000" doc:"Without it, one is generated."`
	Senders  []string `json:"senders,omitempty" maxItems:"1000" doc:"Patterns of addresses that it may send as."`
	Networks []string `json:"networks,omitempty" maxItems:"1000" doc:"Where it may log in from."`
	Groups   []string `json:"groups,omitempty" maxItems:"1000"`
	Note     string   `json:"note,omitempty" maxLength:"2000"`
}

func (s *server) add(ctx context.Context, by operate.Actor, a among, n NewAccount) (operate.Credential, error) {
	return s.Operations.Accounts.Add(ctx, by, operate.NewAccount{Login: n.Login, Password: n.Password,
		Device: a.of == operate.DevicesOnly, Senders: n.Senders, Networks: n.Networks, Groups: n.Groups, Note: n.Note})
}

func (s *server) addDevice(ctx context.Context, by operate.Actor, in *shown[NewAccount]) (*made[operate.DeviceCard],
	error) {
	c, err := s.add(ctx, by, devices, in.Body)
	if err != nil {
		return nil, err
	}
	card := operate.DeviceCard{Credential: c}
	card.Server, card.Encryption = operate.DeviceServer(s.Operations.Accounts.Config())
	return &made[operate.DeviceCard]{devices.location(c.Login), card}, nil
}

type edit struct {
	OfLogin
	Body operate.AccountEdit
}

// Edited is an account after a change.
type Edited struct {
	Account operate.Account `json:"account"`
	Changes []string        `json:"changes" doc:"In words; none where it was so already."`
}

func (s *server) edit(ctx context.Context, by operate.Actor, a among, in *edit) (*shown[Edited], error) {
	u, changes, err := s.Operations.Accounts.Edit(ctx, by, a.of, in.Login, in.Body)
	if err != nil {
		return nil, err
	}
	return &shown[Edited]{Edited{operate.ShownAccount(u), append([]string{}, changes...)}}, nil
}

type newPassword struct {
	OfLogin
	Body struct {
		Password string `json:"password,omitempty" maxLength:"1000" doc:"Without it, one is generated."`
	}
}

type lock struct {
	OfLogin
	Body struct {
		Reason string `json:"reason,omitempty" maxLength:"500" doc:"For those who list the accounts."`
	}
}

func (s *server) lock(ctx context.Context, by operate.Actor, a among, in *lock) (*shown[operate.Account], error) {
	if _, err := s.account(ctx, by, a, in.Login); err != nil { // a device, where it must be one
		return nil, err
	}
	if err := s.Operations.Accounts.Lock(ctx, by, in.Login, in.Body.Reason); err != nil {
		return nil, err
	}
	return s.account(ctx, by, a, in.Login)
}

type unlock struct {
	OfLogin
	Body struct{}
}

// Unlocked is what kept somebody out, and does no longer.
type Unlocked struct {
	Login   string            `json:"login,omitempty"`
	Account bool              `json:"account" doc:"There is such an account, and it is not locked now."`
	Lifted  []operate.Lockout `json:"lifted" doc:"Lockouts that ended."`
}

func (s *server) unlockAccount(ctx context.Context, by operate.Actor, a among, login string) (*shown[Unlocked], error) {
	if _, err := s.account(ctx, by, a, login); err != nil {
		return nil, err
	}
	return s.unlock(ctx, by, login)
}

func (s *server) unlock(ctx context.Context, by operate.Actor, who string) (*shown[Unlocked], error) {
	u, err := s.Operations.Accounts.Unlock(ctx, by, who)
	if err != nil {
		return nil, err
	}
	return &shown[Unlocked]{Unlocked{u.Login, u.Account, operate.ShownLockouts(u.Lifted)}}, nil
}

func (s *server) lockoutRoutes() []route {
	return []route{
		handle(s, route{method: http.MethodGet, path: "/lockouts", id: "lockouts", tag: "Lockouts",
			needs: []operate.Operation{operate.SeeAccounts}, summary: "Who is locked out after wrong passwords"}, s.lockouts),
		handle(s, route{method: http.MethodDelete, path: "/lockouts/{who}", id: "lockout-lift", tag: "Lockouts",
			needs: []operate.Operation{operate.Unlock}, faults: []kind{notFound},
			summary: "Let a login, an address or a network in again",
			about:   "A login is unlocked too where a person has locked it."},
			func(ctx context.Context, by operate.Actor, in *lockedOut) (*shown[Unlocked], error) {
				return s.unlock(ctx, by, in.Who)
			}),
	}
}

type lockedOut struct {
	Who string `path:"who" maxLength:"320"`
}

// Lockouts is a part of who is locked out.
type Lockouts struct {
	Lockouts []operate.Lockout `json:"lockouts"`
	Next     string            `json:"next,omitempty"`
}

func (s *server) lockouts(ctx context.Context, by operate.Actor, in *Page) (*listed[Lockouts], error) {
	at, err := parseCursor("lockouts", in.Cursor)
	if err != nil {
		return nil, err
	}
	_, locks, err := s.Operations.Accounts.List(ctx, by, operate.Everybody)
	if err != nil {
		return nil, err
	}
	name := func(l operate.Lockout) string { return l.Login + " " + l.Address }
	rows, last := pageOf(sorted(operate.ShownLockouts(locks), name), name, at, in.Limit)
	out := Lockouts{append([]operate.Lockout{}, rows...), cursor{"lockouts", last}.String()}
	return &listed[Lockouts]{nextPage(ctx, out.Next), out}, nil
}

func (s *server) importRoutes() []route {
	return []route{handle(s, route{method: http.MethodPost, path: "/logins/import", id: "login-import", tag: "Logins",
		needs: []operate.Operation{operate.ImportAccounts}, once: true, table: true, faults: []kind{busy, conflict},
		summary: "Take in a table of logins and devices",
		about: "The first line names the columns: login, and any of password, senders, networks, groups, note, kind. " +
			"All accounts are taken or none. Generated passwords are shown in this answer only."}, s.importTable)}
}

type table struct {
	Update  bool   `query:"update" doc:"Logins that exist are changed; otherwise they are faults."`
	DryRun  bool   `query:"dry_run" doc:"Nothing is changed."`
	RawBody []byte `contentType:"text/csv"`
}

func (s *server) importTable(ctx context.Context, by operate.Actor, in *table) (*shown[operate.Imported], error) {
	select {
	case s.imports <- struct{}{}:
		defer func() { <-s.imports }()
	default:
		return nil, busy.problem("Another import is under way: try again when it has ended.")
	}
	done, err := s.Operations.Accounts.Import(ctx, by, in.RawBody, operate.Import{Update: in.Update, DryRun: in.DryRun})
	return &shown[operate.Imported]{done}, err
}
