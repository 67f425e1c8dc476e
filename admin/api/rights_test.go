package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"postern/admin/access"
	"postern/operate"
	"postern/relay/trace"
)

// right is what an operation of the API needs, written down apart from the code.
type right struct {
	role   operate.Role
	scope  operate.Scope
	strong bool // the second factor anew; tokens never
}

var (
	reading  = right{operate.Viewer, operate.ScopeRead, false}
	editing  = right{operate.Operator, operate.ScopeAccounts, false}
	owning   = right{operate.Admin, operate.ScopeAdmin, true}
	managing = right{operate.Admin, operate.ScopeAdmin, false}
)

// Keys that prove logins.
var someKey, otherKey = strings.Repeat("1a", 32), strings.Repeat("2b", 32)

// asked is a request to each route that does its work, and the right that it needs. A route that is not here fails.
var asked = map[string]struct {
	right
	path, body string
}{
	"status":        {reading, "/status", ""},
	"upstreams":     {reading, "/upstreams", ""},
	"openapi":       {reading, "/openapi.json", ""},
	"messages":      {reading, "/messages?q=anna", ""},
	"message":       {reading, "/messages/m1", ""},
	"queue":         {reading, "/queue", ""},
	"queue-message": {reading, "/queue/m1", ""},
	"queue-content": {owning, "/queue/m1/content", ""},
	"queue-action": {right{operate.Helpdesk, operate.ScopeQueue, false}, "/queue/actions",
		`{"action":"retry","ids":["m1"]}`},
	"logins":             {reading, "/logins", ""},
	"login":              {reading, "/logins/carl", ""},
	"login-limits":       {reading, "/logins/carl/limits", ""},
	"login-add":          {editing, "/logins", `{"login":"new","senders":["new@example.com"]}`},
	"login-edit":         {editing, "/logins/carl", `{"note":"x"}`},
	"login-remove":       {owning, "/logins/carl", ""},
	"login-password":     {editing, "/logins/carl/password", `{}`},
	"login-lock":         {editing, "/logins/carl/lock", `{"reason":"lost"}`},
	"login-unlock":       {editing, "/logins/carl/unlock", `{}`},
	"devices":            {reading, "/devices", ""},
	"device":             {reading, "/devices/printer", ""},
	"device-limits":      {reading, "/devices/printer/limits", ""},
	"device-add":         {editing, "/devices", `{"login":"new","senders":["new@example.com"]}`},
	"device-edit":        {editing, "/devices/printer", `{"note":"x"}`},
	"device-remove":      {owning, "/devices/printer", ""},
	"device-password":    {editing, "/devices/printer/password", `{}`},
	"device-lock":        {editing, "/devices/printer/lock", `{}`},
	"device-unlock":      {editing, "/devices/printer/unlock", `{}`},
	"login-import":       {editing, "/logins/import", "login\nnew\n"},
	"learning":           {reading, "/learning", ""},
	"learning-begin":     {managing, "/learning", `{"network":"10.0.5.0/24","minutes":60}`},
	"learning-stop":      {managing, "/learning", ""},
	"learning-accept":    {editing, "/learning/10.0.5.31/accept", `{"login":"scanner","senders":["anna@example.com"]}`},
	"learning-forget":    {editing, "/learning/10.0.5.77", ""},
	"login-mechanisms":   {reading, "/logins/carl/mechanisms", ""},
	"login-pin":          {editing, "/logins/carl/certificates", `{"key":"` + someKey + `"}`},
	"login-unpin":        {editing, "/logins/carl/certificates/" + someKey, ""},
	"login-client":       {reading, "/logins/carl/client", ""},
	"login-mobileconfig": {reading, "/logins/carl/mobileconfig", ""},
	"device-mechanisms":  {reading, "/devices/printer/mechanisms", ""},
	"device-pin":         {editing, "/devices/printer/certificates", `{"key":"` + otherKey + `"}`},
	"device-unpin":       {editing, "/devices/printer/certificates/" + otherKey, ""},
	"lockouts":           {reading, "/lockouts", ""},
	"lockout-lift":       {editing, "/lockouts/carl", ""},
	"domains":            {reading, "/domains", ""},
	"domain-add": {right{operate.Admin, operate.ScopeAdmin, false}, "/domains",
		`{"domain":"example.com","algorithms":["ed25519"]}`},
	"audit":         {right{operate.Operator, operate.ScopeAdmin, false}, "/audit?limit=2", ""},
	"stats":         {reading, "/stats?by=upstream&per=day", ""},
	"alerts":        {reading, "/alerts?past=true", ""},
	"settings":      {reading, "/settings?q=listener", ""},
	"queue-shape":   {reading, "/queue/shape", ""},
	"queue-headers": {right{operate.Helpdesk, operate.ScopeQueue, false}, "/queue/m1/headers", ""},
	"doctor-last":   {reading, "/doctor", ""},
	"doctor":        {right{operate.Helpdesk, operate.ScopeAdmin, false}, "/doctor", `{}`},
	"dns":           {reading, "/dns", ""},
	"dns-look":      {right{operate.Helpdesk, operate.ScopeAdmin, false}, "/dns/a..b", `{}`},
	"domain-rotate": {right{operate.Admin, operate.ScopeAdmin, false}, "/domains/example.com/rotate", `{}`},
	"domain-check":  {right{operate.Operator, operate.ScopeAdmin, false}, "/domains/example.com/check", `{}`},
	"key-retire": {right{operate.Admin, operate.ScopeAdmin, false}, "/domains/example.com/keys/r1/retire",
		`{}`},
	"key-remove":              {owning, "/domains/example.com/keys/r1", ""},
	"tokens":                  {managing, "/tokens", ""},
	"token-add":               {owning, "/tokens", `{"name":"new","scopes":["read"]}`},
	"token-revoke":            {managing, "/tokens/monitoring", ""},
	"users":                   {managing, "/users", ""},
	"user-invite":             {owning, "/users", `{"name":"new","role":"viewer"}`},
	"user-edit":               {owning, "/users/eve", `{"role":"helpdesk","disabled":false}`},
	"user-remove":             {owning, "/users/eve", ""},
	"reindex":                 {managing, "/messages/reindex", `{}`},
	"forget":                  {owning, "/messages/forget", `{"name":"zoe@example.com"}`},
	"certificates":            {reading, "/certificates", ""},
	"certificate-file":        {reading, "/certificates/relay.example.com", ""},
	"certificate-renew":       {right{operate.Operator, operate.ScopeAdmin, false}, "/certificates/renew", `{}`},
	"certificate-records":     {right{operate.Operator, operate.ScopeAdmin, false}, "/certificates/records", `{}`},
	"alert-test":              {right{operate.Operator, operate.ScopeAdmin, false}, "/alerts/test", `{}`},
	"app-passwords":           {reading, "/app-passwords?login=carl", ""},
	"app-password-add":        {editing, "/app-passwords", `{"login":"carl","name":"printer"}`},
	"app-password-revoke":     {editing, "/app-passwords/carl/none", ""},
	"app-password-revoke-all": {editing, "/app-passwords/carl", ""},
	"app-password-forget":     {managing, "/app-passwords/carl/forget", `{}`},
	"nodes":                   {reading, "/nodes", ""},
	"node-drain":              {managing, "/nodes/mail-1/drain", `{}`},
	"node-undrain":            {managing, "/nodes/mail-1/undrain", `{}`},
}

// who are all kinds of callers, and whether a right lets them in.
var who = map[string]struct {
	operate.Actor
	may func(right) bool
}{
	"nobody":   person(operate.Nobody, false),
	"viewer":   person(operate.Viewer, false),
	"helpdesk": person(operate.Helpdesk, false),
	"operator": person(operate.Operator, false),
	"admin":    person(operate.Admin, false),
	"strong":   person(operate.Admin, true),
	"weak one": person(operate.Operator, true),
	"none":     program(),
	"read":     program(operate.ScopeRead),
	"queue":    program(operate.ScopeQueue),
	"accounts": program(operate.ScopeAccounts),
	"all":      program(operate.ScopeAdmin),
}

type caller = struct {
	operate.Actor
	may func(right) bool
}

func person(role operate.Role, strong bool) caller {
	return caller{operate.Actor{Name: role.String(), Channel: operate.Console, Role: role, Strong: strong},
		func(r right) bool { return role >= r.role && (strong || !r.strong) }}
}

func program(has ...operate.Scope) caller {
	return caller{scopes(has...), func(r right) bool {
		for _, s := range has {
			if !r.strong && (s == r.scope || s == operate.ScopeAdmin || r.scope == operate.ScopeRead) {
				return true
			}
		}
		return false
	}}
}

// world is a store in which every request of asked has something to do.
func world(t testing.TB) *rig {
	r := newRig(t)
	r.queued("m1", nil)
	r.happened(trace.Event{Kind: trace.Accepted, ID: "m1", Login: "anna", Session: "s1"})
	r.account("carl", false)
	r.account("printer", true)
	owner := operate.Actor{Name: "root", Channel: operate.CommandLine}
	if _, err := r.access.Users.Invite(t.Context(), owner, "eve", operate.Viewer); err != nil {
		t.Fatal(err)
	}
	token := access.NewToken{Name: "monitoring", Scopes: []operate.Scope{operate.ScopeRead}}
	if _, err := r.access.Tokens.Add(t.Context(), owner, token); err != nil {
		t.Fatal(err)
	}
	return r
}

func send(r *rig, to *route, by operate.Actor) answer {
	a := asked[to.id]
	req := request(to.method, a.path, a.body)
	if to.table {
		req.Header.Set("Content-Type", "text/csv")
	}
	return r.do(by, req)
}

// Every route × every role and scope. What is refused is refused for that alone, and changes nothing.
func TestRights(t *testing.T) {
	r := world(t)
	for i := range r.api.routes {
		to := &r.api.routes[i]
		a, ok := asked[to.id]
		if !ok {
			t.Errorf("%s %s (%s): write down in asked what it needs", to.method, to.path, to.id)
			continue
		}
		for name, caller := range who {
			if caller.may(a.right) {
				continue
			}
			got := send(r, to, caller.Actor)
			want := "forbidden"
			if a.strong && caller.Channel == operate.Console && caller.Role >= a.role {
				want = "second-factor"
			}
			if got.StatusCode != http.StatusForbidden || got.problem() != want {
				t.Errorf("%s as %s: %d %s, want %s", to.id, name, got.StatusCode, got.problem(), want)
			}
		}
	}
	if users, err := r.store.Users(t.Context()); err != nil || len(users) != 2 || users[0].Locked ||
		users[0].Note != "" {
		t.Errorf("the refused changed something: %+v, %v", users, err)
	}
	if keys, err := r.store.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("keys: %v, %v", keys, err)
	}
}

// refusedAll are routes that have nothing to do in the world of these tests: whoever may is told so.
var refusedAll = map[string]int{
	"doctor-last": http.StatusNotFound, "dns-look": http.StatusUnprocessableEntity,
	"domain-rotate": http.StatusConflict, "key-retire": http.StatusNotFound,
	"learning-forget": http.StatusNotFound, "certificate-file": http.StatusNotFound, // there is none yet
	"login-mobileconfig":  http.StatusUnprocessableEntity, // without [autoconfig]
	"app-password-revoke": http.StatusNotFound,
	"node-drain":          http.StatusConflict, "node-undrain": http.StatusConflict, // with SQLite
}

func TestWhoMayIsLetIn(t *testing.T) {
	for name, caller := range who {
		t.Run(name, func(t *testing.T) {
			r := world(t)
			for i := range r.api.routes {
				to := &r.api.routes[i]
				if !caller.may(asked[to.id].right) || strings.HasSuffix(to.id, "-remove") || to.id == "doctor" {
					continue
				}
				got := send(r, to, caller.Actor)
				fine := got.StatusCode < 300
				if status := refusedAll[to.id]; status != 0 {
					fine = got.StatusCode == status
				}
				if to.id == "lockout-lift" {
					fine = fine || got.StatusCode == http.StatusNotFound // nobody is locked out
				}
				if to.id == "device-add" || to.id == "login-import" {
					fine = fine || got.StatusCode == http.StatusConflict ||
						got.problem() == "invalid" // after login-add
				}
				if !fine {
					t.Errorf("%s: %d %s", to.id, got.StatusCode, got.body)
				}
			}
			for _, gone := range []string{"login-remove", "device-remove"} {
				for i := range r.api.routes {
					if to := &r.api.routes[i]; to.id == gone && caller.may(asked[gone].right) {
						if got := send(r, to, caller.Actor); got.StatusCode != http.StatusNoContent ||
							len(got.body) > 0 {
							t.Errorf("%s: %d %s", gone, got.StatusCode, got.body)
						}
					}
				}
			}
		})
	}
}

// An action needs the right of what it does, not that of another.
func TestRightsOfActions(t *testing.T) {
	r := world(t)
	helpdesk := person(operate.Helpdesk, false).Actor
	for verb, may := range map[string]bool{"retry": true, "release": true, "hold": false, "bounce": false,
		"delete": false} {
		for _, dry := range []string{"true", "false"} {
			got := r.do(helpdesk, request(http.MethodPost, "/queue/actions",
				`{"action":"`+verb+`","ids":["m1"],"dry_run":`+dry+`}`))
			if may != (got.StatusCode == http.StatusOK) || !may && got.problem() != "forbidden" {
				t.Errorf("%s (dry run: %s): %d %s", verb, dry, got.StatusCode, got.body)
			}
		}
	}
}

// Without somebody who asks, nothing is answered: not even what there is.
func TestNobody(t *testing.T) {
	r := world(t)
	owner := operate.Actor{Name: "root", Channel: operate.CommandLine} // may everything: never by HTTP
	ask := func(method, path, body string) {
		t.Helper()
		for _, req := range []*http.Request{request(method, path, body), request(method, path, body).WithContext(
			operate.WithActor(t.Context(), owner)), request(method, path, body).WithContext(
			operate.WithActor(t.Context(), operate.Actor{}))} {
			got := r.serve(req)
			if got.StatusCode != http.StatusUnauthorized || got.problem() != "unauthenticated" ||
				!strings.HasPrefix(got.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s %s: %d %s", method, path, got.StatusCode, got.body)
			}
		}
	}
	for i := range r.api.routes {
		to := &r.api.routes[i]
		ask(to.method, asked[to.id].path, asked[to.id].body)
	}
	ask(http.MethodGet, "/none", "")
	ask(http.MethodOptions, "/queue", "")
}

// Other methods and paths are problems too, and no other site's page may ask with a session.
func TestNowhere(t *testing.T) {
	r := world(t)
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/none", "no-such-path"}, {"GET", "/", "no-such-path"}, {"PUT", "/queue", "wrong-method"},
		{"OPTIONS", "/queue", "wrong-method"}, {"DELETE", "/queue/m1", "wrong-method"},
		{"GET", "/queue?nothing=1", "invalid"}, {"GET", "/queue?limit=1&limit=2", "invalid"},
		{"GET", "/queue?limit=0", "invalid"}, {"GET", "/queue?limit=501", "invalid"},
	} {
		if got := r.do(admin, request(c.method, c.path, "")); got.problem() != c.want {
			t.Errorf("%s %s: %d %s", c.method, c.path, got.StatusCode, got.body)
		}
	}
	if got := r.do(admin, request("PUT", "/queue", "")); got.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", got.Header.Get("Allow"))
	}
	for site, by := range map[string]operate.Actor{"cross-site": admin, "same-site": admin, "": token} {
		req := request(http.MethodPost, "/queue/actions", `{"action":"retry","ids":["m1"]}`)
		req.Header.Set("Sec-Fetch-Site", site)
		if got := r.do(by, req); (site != "") != (got.problem() == "cross-origin") {
			t.Errorf("from %q: %d %s", site, got.StatusCode, got.body)
		}
	}
}

// Whatever a person may do is reachable by the API. What is not has its reason here.
func TestEveryOperationHasARoute(t *testing.T) {
	without := map[string]string{
		"console reset":      "only the owner of the machine resets somebody: on the command line",
		"app-password enrol": "people do it themselves, by logging in to the page",
		"backup":             "it has all secrets: only the owner of the machine makes one, on the command line",
		"restore":            "it is done before there is a daemon",
	}
	r := newRig(t)
	for _, op := range operate.All {
		has := slices.ContainsFunc(r.api.routes, func(to route) bool { return slices.Contains(to.needs, op) })
		// Retry, hold and the others are one route, which names the least of their rights.
		has = has || slices.ContainsFunc(operate.Actions, func(a operate.Action) bool { return a.Operation == op })
		if has == (without[op.Name] != "") {
			t.Errorf("%s: has a route: %v, has a reason to have none: %q", op.Name, has, without[op.Name])
		}
	}
}
