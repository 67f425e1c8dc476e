package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"postern/auth"
	"postern/operate"
)

// maxTable bounds a table of accounts, in octets.
const maxTable = operate.MaxTable

// accountAPI serves a list of accounts: all, or the devices.
type accountAPI struct {
	path, one, all, tag string
	of                  operate.Among
	ops                 *operate.Operations
	now                 func() time.Time
}

func (s *server) loginRoutes() []route {
	a := accountAPI{"/logins", "login", "logins", "Logins", operate.Everybody, s.Operations, s.Now}
	add := handle(s, a.route(http.MethodPost, "", "add", "Add a login", operate.AddAccount, conflict), a.addLogin)
	return slices.Concat(a.routes(s), a.proofRoutes(s), a.clientRoutes(s), []route{add})
}

func (s *server) deviceRoutes() []route {
	a := accountAPI{"/devices", "device", "devices", "Devices", operate.DevicesOnly, s.Operations, s.Now}
	add := handle(s, a.route(http.MethodPost, "", "add", "Add a device", operate.AddAccount, conflict), a.addDevice)
	return slices.Concat(a.routes(s), a.proofRoutes(s), []route{add})
}

// routes are those that logins and devices both have.
func (a accountAPI) routes(s *server) []route {
	list := a.route(http.MethodGet, "", "", "The "+a.all+", in order of their names", operate.SeeAccounts)
	list.id = a.all
	get := a.route(http.MethodGet, "/{login}", "", "One "+a.one, operate.SeeAccounts, notFound, conflict)
	if get.id = a.one; a.of == operate.Everybody {
		get.about = "One whose account is in another source is shown as far as it is known, with the kind " +
			"\"elsewhere\", if it is locked or has app passwords."
	}
	limits := a.route(http.MethodGet, "/{login}/limits", "limits", "What is left of the limits of a "+a.one,
		operate.SeeAccounts, notFound, conflict)
	change := func(method, path, verb, summary string, op operate.Operation) route {
		return a.route(method, "/{login}"+path, verb, summary, op, notFound, conflict)
	}
	return []route{
		handle(s, list, a.list),
		handle(s, get, a.get),
		handle(s, limits, a.limits),
		handle(s, change(http.MethodPatch, "", "edit", "Change a "+a.one, operate.EditAccount), a.edit),
		handle(s, change(http.MethodDelete, "", "remove", "Remove a "+a.one, operate.RemoveAccount), a.remove),
		handle(s, change(http.MethodPost, "/password", "password", "Give a "+a.one+" a new password",
			operate.NewPassword), a.password),
		handle(s, change(http.MethodPost, "/lock", "lock", "Lock a "+a.one, operate.LockAccount), a.lock),
		handle(s, change(http.MethodPost, "/unlock", "unlock", "Let a "+a.one+" in again", operate.Unlock), a.unlock),
	}
}

// route describes an operation on accounts.
func (a accountAPI) route(method, path, verb, summary string, op operate.Operation, faults ...kind) route {
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
	case "limits":
		r.about = "Each limit of [[policy]] that binds it, the first that applies in front. They refill evenly over " +
			"their windows."
	case "lock":
		r.about = "It may not log in until it is unlocked."
	case "unlock":
		r.about = "Ends its lock, and the lockouts of its name."
	}
	return r
}

func (a accountAPI) location(login string) string {
	return Prefix + a.path + "/" + url.PathEscape(login)
}

// OfLogin names an account.
type OfLogin struct {
	Login string `path:"login" maxLength:"320"`
}

// Accounts is a part of the accounts.
type Accounts struct {
	Accounts []operate.Account `json:"accounts"`
	Next     string            `json:"next,omitempty"`
}

func (a accountAPI) list(ctx context.Context, by operate.Actor, in *Page) (*listed[Accounts], error) {
	at, err := parseCursor(a.all, in.Cursor)
	if err != nil {
		return nil, err
	}
	users, _, err := a.ops.Accounts.List(ctx, by, a.of)
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

func (a accountAPI) get(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[operate.Account], error) {
	u, here, err := a.ops.Accounts.Known(ctx, by, a.of, in.Login)
	if err != nil {
		return nil, err
	}
	return &shown[operate.Account]{operate.ShownKnown(u, here)}, nil
}

func (a accountAPI) limits(ctx context.Context, by operate.Actor, in *OfLogin) (*shown[operate.Limits], error) {
	l, err := a.ops.Accounts.Limits(ctx, by, a.of, in.Login, a.now())
	if err != nil {
		return nil, err
	}
	return &shown[operate.Limits]{l}, nil
}

// NewAccount is an account to be added.
type NewAccount struct {
	Login    string   `json:"login" minLength:"1" maxLength:"320"`
	Password string   `json:"password,omitempty" maxLength:"1000" doc:"Without it, one is generated."`
	Senders  []string `json:"senders,omitempty" maxItems:"1000" doc:"Patterns of addresses that it may send as."`
	Networks []string `json:"networks,omitempty" maxItems:"1000" doc:"Where it may log in from."`
	Groups   []string `json:"groups,omitempty" maxItems:"1000"`
	Note     string   `json:"note,omitempty" maxLength:"2000"`

	WithoutSender bool `json:"without_sender,omitempty" doc:"Add it though it may send as nobody yet."`
}

func (a accountAPI) add(ctx context.Context, by operate.Actor, n NewAccount) (operate.Credential, error) {
	return a.ops.Accounts.Add(ctx, by, operate.NewAccount{Login: n.Login, Password: n.Password,
		Device: a.of == operate.DevicesOnly, Senders: n.Senders, Networks: n.Networks, Groups: n.Groups, Note: n.Note,
		WithoutSender: n.WithoutSender})
}

func (a accountAPI) addLogin(ctx context.Context, by operate.Actor, in *shown[NewAccount]) (
	*made[operate.Credential], error) {
	c, err := a.add(ctx, by, in.Body)
	if err != nil {
		return nil, err
	}
	return &made[operate.Credential]{a.location(c.Login), c}, nil
}

func (a accountAPI) addDevice(ctx context.Context, by operate.Actor, in *shown[NewAccount]) (
	*made[operate.DeviceCard], error) {
	c, err := a.add(ctx, by, in.Body)
	if err != nil {
		return nil, err
	}
	card := operate.DeviceCard{Credential: c}
	card.Server, card.Encryption = operate.DeviceServer(a.ops.Accounts.Config())
	return &made[operate.DeviceCard]{a.location(c.Login), card}, nil
}

func (a accountAPI) remove(ctx context.Context, by operate.Actor, in *OfLogin) (*struct{}, error) {
	return nil, a.ops.Accounts.Remove(ctx, by, a.of, in.Login)
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

func (a accountAPI) edit(ctx context.Context, by operate.Actor, in *edit) (*shown[Edited], error) {
	u, changes, err := a.ops.Accounts.Edit(ctx, by, a.of, in.Login, in.Body)
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

func (a accountAPI) password(ctx context.Context, by operate.Actor, in *newPassword) (*shown[operate.Credential],
	error) {
	c, err := a.ops.Accounts.Password(ctx, by, a.of, in.Login, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return &shown[operate.Credential]{c}, nil
}

type lock struct {
	OfLogin
	Body struct {
		Reason string `json:"reason,omitempty" maxLength:"500" doc:"For those who list the accounts."`
	}
}

func (a accountAPI) lock(ctx context.Context, by operate.Actor, in *lock) (*shown[operate.Account], error) {
	if a.of == operate.DevicesOnly { // it must be one; others may be of any source
		if _, err := a.get(ctx, by, &in.OfLogin); err != nil {
			return nil, err
		}
	}
	if err := a.ops.Accounts.Lock(ctx, by, in.Login, in.Body.Reason); err != nil {
		return nil, err
	}
	return a.get(ctx, by, &in.OfLogin)
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

func (a accountAPI) unlock(ctx context.Context, by operate.Actor, in *unlock) (*shown[Unlocked], error) {
	if _, err := a.get(ctx, by, &in.OfLogin); err != nil {
		return nil, err
	}
	return lockoutAPI{a.ops}.lift(ctx, by, in.Login)
}

// lockoutAPI serves who is locked out.
type lockoutAPI struct{ ops *operate.Operations }

func (l lockoutAPI) lift(ctx context.Context, by operate.Actor, who string) (*shown[Unlocked], error) {
	u, err := l.ops.Accounts.Unlock(ctx, by, who)
	if err != nil {
		return nil, err
	}
	return &shown[Unlocked]{Unlocked{u.Login, u.Account, operate.ShownLockouts(u.Lifted)}}, nil
}

func (s *server) lockoutRoutes() []route {
	l := lockoutAPI{s.Operations}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/lockouts", id: "lockouts", tag: "Lockouts",
			needs: []operate.Operation{operate.SeeAccounts}, summary: "Who is locked out after wrong passwords"},
			l.list),
		handle(s, route{method: http.MethodDelete, path: "/lockouts/{who}", id: "lockout-lift", tag: "Lockouts",
			needs: []operate.Operation{operate.Unlock}, faults: []kind{notFound},
			summary: "Let a login, an address or a network in again",
			about:   "A login is unlocked too where a person has locked it."},
			func(ctx context.Context, by operate.Actor, in *lockedOut) (*shown[Unlocked], error) {
				return l.lift(ctx, by, in.Who)
			}),
	}
}

type lockedOut struct {
	Who string `path:"who" maxLength:"320"`
}

// Lockouts is a part of who is locked out.
type Lockouts struct {
	Lockouts []operate.Lockout `json:"lockouts"`
	Locked   []operate.Locked  `json:"locked,omitempty" doc:"Locked logins without an account here, 1000 at most."`
	Next     string            `json:"next,omitempty"`
}

func (l lockoutAPI) list(ctx context.Context, by operate.Actor, in *Page) (*listed[Lockouts], error) {
	at, err := parseCursor("lockouts", in.Cursor)
	if err != nil {
		return nil, err
	}
	_, locks, err := l.ops.Accounts.List(ctx, by, operate.Everybody)
	if err != nil {
		return nil, err
	}
	name := func(l operate.Lockout) string { return l.Login + " " + l.Address }
	rows, last := pageOf(sorted(operate.ShownLockouts(locks), name), name, at, in.Limit)
	out := Lockouts{Lockouts: append([]operate.Lockout{}, rows...), Next: cursor{"lockouts", last}.String()}
	if in.Cursor == "" {
		locked, err := l.ops.Accounts.LockedElsewhere(ctx, by, operate.Everybody)
		if err != nil {
			return nil, err
		}
		out.Locked = operate.ShownLocks(locked[:min(len(locked), 1000)])
	}
	return &listed[Lockouts]{nextPage(ctx, out.Next), out}, nil
}

// importAPI takes in tables of accounts, one at a time.
type importAPI struct{ ops *operate.Operations }

func (s *server) importRoutes() []route {
	i := importAPI{s.Operations}
	return []route{handle(s, route{method: http.MethodPost, path: "/logins/import", id: "login-import", tag: "Logins",
		needs: []operate.Operation{operate.ImportAccounts}, once: true, table: true, faults: []kind{busy, conflict},
		summary: "Take in a table of logins and devices",
		about: "The first line names the columns: login, and any of password, senders, networks, groups, note, kind. " +
			"All accounts are taken or none. Generated passwords are shown in this answer only."}, i.take)}
}

type table struct {
	Update  bool   `query:"update" doc:"Logins that exist are changed; otherwise they are faults."`
	DryRun  bool   `query:"dry_run" doc:"Nothing is changed."`
	Silent  bool   `query:"without_sender" doc:"Accounts are added though they may send as nobody yet."`
	RawBody []byte `contentType:"text/csv"`
}

func (i importAPI) take(ctx context.Context, by operate.Actor, in *table) (*shown[operate.Imported], error) {
	done, err := i.ops.Accounts.Import(ctx, by, in.RawBody, operate.Import{Update: in.Update, DryRun: in.DryRun,
		WithoutSender: in.Silent})
	return &shown[operate.Imported]{done}, err
}
