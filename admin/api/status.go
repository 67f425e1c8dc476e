package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postern/mail"
	"postern/operate"
	"postern/relay/sign"
	"postern/relay/status"
)

// none is a request without parameters.
type none struct{}

// statusAPI serves how the relay is, and what is done with alerts and keys.
type statusAPI struct{ ops *operate.Operations }

func (s *server) statusRoutes() []route {
	a := statusAPI{s.Operations}
	see := []operate.Operation{operate.SeeStatus}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/status", id: "status", tag: "Status", needs: see,
			summary: "Whether mail can leave",
			about:   "The sentence on top, and the state of upstreams, queue, certificates, secrets' ends and disk."},
			func(ctx context.Context, by operate.Actor, _ *none) (*shown[*status.Report], error) {
				report, err := a.ops.Status.Report(ctx, by)
				return &shown[*status.Report]{report}, err
			}),
		handle(s, route{method: http.MethodGet, path: "/upstreams", id: "upstreams", tag: "Status", needs: see,
			summary: "The upstreams and their identities",
			about:   "What each takes from us, why not, and what to do. No secret is among it."}, a.upstreams),
		handle(s, route{method: http.MethodGet, path: "/openapi.json", id: "openapi", tag: "Status", needs: see,
			summary: "This description", media: "application/json", schema: &huma.Schema{Type: huma.TypeObject}},
			func(context.Context, operate.Actor, *none) (*stream, error) {
				return &stream{Type: "application/json", Body: func(out huma.Context) {
					out.SetStatus(http.StatusOK)
					_, _ = out.BodyWriter().Write(s.spec) // kept back by the guard
				}}, nil
			}),
	}
}

// Upstreams are the upstreams at one time.
type Upstreams struct {
	Time      time.Time         `json:"time"`
	Running   bool              `json:"running" doc:"False: the daemon does not answer; states are not known."`
	Upstreams []status.Upstream `json:"upstreams"`
}

func (a statusAPI) upstreams(ctx context.Context, by operate.Actor, _ *none) (*shown[Upstreams], error) {
	report, err := a.ops.Status.Report(ctx, by)
	if err != nil {
		return nil, err
	}
	return &shown[Upstreams]{Upstreams{report.Time, report.Running, report.Upstreams}}, nil
}

func (s *server) alertRoutes() []route {
	a := statusAPI{s.Operations}
	return []route{handle(s, route{method: http.MethodPost, path: "/alerts/test", id: "alert-test", tag: "Alerts",
		needs: []operate.Operation{operate.TestAlerts}, faults: []kind{notFound},
		summary: "Post a test to the alert hooks",
		about:   "Answers 200 also where a hook did not take it: see ok of each."}, a.testAlerts)}
}

type alertTest struct {
	Body struct {
		Alert int `json:"alert,omitempty" minimum:"0" maximum:"1000" doc:"Number of the [[alert]], from 1; 0: all."`
	}
}

// AlertTests is what became of test alerts.
type AlertTests struct {
	Tests []AlertTest `json:"tests"`
}

// AlertTest is what became of one.
type AlertTest struct {
	Hook  string `json:"hook" doc:"As alert[1]."`
	Host  string `json:"host"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

func (a statusAPI) testAlerts(ctx context.Context, by operate.Actor, in *alertTest) (*shown[AlertTests], error) {
	tests, err := a.ops.Alerts.Test(ctx, by, in.Body.Alert)
	if err != nil {
		return nil, err
	}
	out := AlertTests{Tests: []AlertTest{}}
	for _, t := range tests {
		row := AlertTest{Hook: t.Hook, Host: t.Host, OK: t.Err == nil}
		if t.Err != nil {
			row.Error = mail.Cut(mail.Printable(t.Err.Error()), maxDetail)
		}
		out.Tests = append(out.Tests, row)
	}
	return &shown[AlertTests]{out}, nil
}

func (s *server) domainRoutes() []route {
	a := statusAPI{s.Operations}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/domains", id: "domains", tag: "Domains",
			needs: []operate.Operation{operate.SeeKeys}, summary: "The DKIM keys that sign, with their DNS records",
			about: "The public halves only."}, a.keys),
		handle(s, route{method: http.MethodPost, path: "/domains", id: "domain-add", tag: "Domains",
			needs: []operate.Operation{operate.AddKeys}, status: http.StatusCreated, faults: []kind{conflict},
			summary: "Make DKIM keys for a domain"}, a.addKeys),
	}
}

// Keys are DKIM keys.
type Keys struct {
	Keys []operate.KeyView `json:"keys"`
	Next string            `json:"next,omitempty"`
}

func (a statusAPI) keys(ctx context.Context, by operate.Actor, in *Page) (*listed[Keys], error) {
	at, err := parseCursor("keys", in.Cursor)
	if err != nil {
		return nil, err
	}
	keys, err := a.ops.Keys.List(ctx, by)
	if err != nil {
		return nil, err
	}
	all := operate.ShownKeys(keys)
	rows, last := pageOf(sorted(all, keyName), keyName, at, in.Limit)
	out := Keys{append([]operate.KeyView{}, rows...), cursor{"keys", last}.String()}
	return &listed[Keys]{nextPage(ctx, out.Next), out}, nil
}

// keyName orders keys, of which one of relay.toml and one of the store may have the same record.
func keyName(k operate.KeyView) string {
	return k.Domain + " " + k.Selector + " " + k.Origin + " " + k.Algorithm
}

type newKeys struct {
	Body struct {
		Domain     string   `json:"domain" minLength:"1" maxLength:"255"`
		Selector   string   `json:"selector,omitempty" maxLength:"63" doc:"Without it, r and e with year and month."`
		Algorithms []string `json:"algorithms,omitempty" enum:"rsa-2048,ed25519" maxItems:"2" doc:"Without it, both."`
	}
}

func (a statusAPI) addKeys(ctx context.Context, by operate.Actor, in *newKeys) (*shown[Keys], error) {
	algorithms := in.Body.Algorithms
	if len(algorithms) == 0 {
		algorithms = []string{sign.RSA2048, sign.Ed25519}
	}
	keys, err := a.ops.Keys.Add(ctx, by, in.Body.Domain, in.Body.Selector, algorithms)
	if err != nil {
		return nil, err
	}
	return &shown[Keys]{Keys{Keys: operate.ShownKeys(keys)}}, nil
}
