package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/stats"
	"postern/relay/store"
)

// recordAPI serves what is recorded: the audit, statistics, alerts, and what is in force.
type recordAPI struct {
	ops *operate.Operations
	now func() time.Time
}

func (s *server) recordRoutes() []route {
	a := recordAPI{s.Operations, s.Now}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/audit", id: "audit", tag: "Records",
			needs: []operate.Operation{operate.SeeAudit}, summary: "Who did what, newest first"}, a.audit),
		handle(s, route{method: http.MethodGet, path: "/stats", id: "stats", tag: "Records",
			needs: []operate.Operation{operate.SeeStatistics}, summary: "How much mail, and what became of it",
			about: "Hours of the last 90 days, days of the last two years, of UTC; the period is widened to " +
				"whole ones."},
			a.stats),
		handle(s, route{method: http.MethodGet, path: "/alerts", id: "alerts", tag: "Alerts",
			needs: []operate.Operation{operate.SeeAlerts}, summary: "What operators must know, newest first",
			about: "The alerts that are open, or with `past` also those that were."}, a.alerts),
		handle(s, route{method: http.MethodGet, path: "/settings", id: "settings", tag: "Records",
			needs: []operate.Operation{operate.SeeSettings}, summary: "What is in force, with the lines of relay.toml",
			about: "Secrets are named by where they come from."}, a.settings),
		handle(s, route{method: http.MethodGet, path: "/queue/shape", id: "queue-shape", tag: "Queue",
			needs: []operate.Operation{operate.SeeQueue}, summary: "What waits, by age, upstream and domain"}, a.shape),
		handle(s, route{method: http.MethodGet, path: "/queue/{id}/headers", id: "queue-headers", tag: "Queue",
			needs: []operate.Operation{operate.SeeHeaders}, faults: []kind{notFound},
			summary: "The header of a message that waits"}, a.headers),
		handle(s, route{method: http.MethodPost, path: "/messages/reindex", id: "reindex", tag: "Messages",
			needs: []operate.Operation{operate.ReindexTrace}, status: http.StatusNoContent,
			summary: "Make the index of the search anew", about: "In the background; the trace is not touched."},
			a.reindex),
		handle(s, route{method: http.MethodPost, path: "/messages/forget", id: "forget", tag: "Messages", slow: true,
			needs: []operate.Operation{operate.ForgetPerson}, summary: "Remove a person from what is recorded",
			about: "From the trace, the statistics and the known recipients; the answer says what stays."}, a.forget),
	}
}

type auditQuery struct {
	Since     time.Time `query:"since"`
	Until     time.Time `query:"until" doc:"Not part of it."`
	Actor     string    `query:"actor" maxLength:"320" doc:"Exactly."`
	Operation string    `query:"operation" maxLength:"100" doc:"Exactly, such as \"queue release\"."`
	Page
}

// AuditPage is a part of the audit.
type AuditPage struct {
	Entries []store.AuditEntry `json:"entries"`
	Next    string             `json:"next,omitempty"`
}

func (a recordAPI) audit(ctx context.Context, by operate.Actor, in *auditQuery) (*listed[AuditPage], error) {
	before, err := numberIn("audit", in.Cursor)
	if err != nil {
		return nil, err
	}
	entries, err := a.ops.Audit.List(ctx, by, store.AuditQuery{Since: in.Since, Until: in.Until, Actor: in.Actor,
		Operation: in.Operation, Before: before, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	out := AuditPage{Entries: append([]store.AuditEntry{}, entries[:min(len(entries), in.Limit)]...)}
	if len(entries) > in.Limit {
		out.Next = numbered("audit", entries[in.Limit-1].N)
	}
	return &listed[AuditPage]{nextPage(ctx, out.Next), out}, nil
}

// numberIn reads a cursor that is a number; 0 is the beginning.
func numberIn(list, text string) (int64, error) {
	at, err := parseCursor(list, text)
	if err != nil || at == "" {
		return 0, err
	}
	n, err := strconv.ParseInt(at, 36, 64)
	if err != nil || n <= 0 {
		return 0, invalid.problem("The cursor is not one of this list.")
	}
	return n, nil
}

func numbered(list string, n int64) string { return cursor{list, strconv.FormatInt(n, 36)}.String() }

type statsQuery struct {
	By    string    `query:"by" enum:"login,listener,upstream,sender-domain,recipient-domain,all" default:"login"`
	Since time.Time `query:"since" doc:"Without it, a week before the end."`
	Until time.Time `query:"until" doc:"Without it, now."`
	Per   string    `query:"per" enum:"hour,day,total" default:"total"`
	Key   string    `query:"key" maxLength:"320" doc:"Only this name, such as a login or a domain."`
	Limit int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The names with most mail."`
}

func (a recordAPI) stats(ctx context.Context, by operate.Actor, in *statsQuery) (*shown[operate.Statistics], error) {
	q := stats.Query{Since: in.Since, Until: in.Until, Limit: in.Limit}
	var err error
	if in.By == "all" {
		q.By = stats.All
	} else if q.By, err = stats.ParseDimension(in.By); err != nil {
		return nil, invalid.problem(err.Error())
	}
	if q.Step, err = stats.ParseStep(in.Per); err != nil {
		return nil, invalid.problem(err.Error())
	}
	if in.Key != "" {
		q.OnlyKey = &in.Key
	}
	table, err := a.ops.Trace.Statistics(ctx, by, q, a.now())
	if err != nil {
		return nil, err
	}
	return &shown[operate.Statistics]{operate.ShownStatistics(table)}, nil
}

type alertsQuery struct {
	Past bool `query:"past" doc:"Also those that are over."`
	Page
}

// AlertPage is a part of the alerts.
type AlertPage struct {
	Alerts []store.Alert `json:"alerts"`
	Next   string        `json:"next,omitempty"`
}

func (a recordAPI) alerts(ctx context.Context, by operate.Actor, in *alertsQuery) (*listed[AlertPage], error) {
	at, err := parseCursor("alerts", in.Cursor)
	if err != nil {
		return nil, err
	}
	alerts, err := a.ops.Alerts.List(ctx, by, store.AlertQuery{Open: !in.Past, After: at, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	out := AlertPage{Alerts: append([]store.Alert{}, alerts[:min(len(alerts), in.Limit)]...)}
	if len(alerts) > in.Limit {
		out.Next = cursor{"alerts", alerts[in.Limit-1].Place()}.String()
	}
	return &listed[AlertPage]{nextPage(ctx, out.Next), out}, nil
}

// InForce is what is in force.
type InForce struct {
	Path     string           `json:"path"`
	Settings []config.Setting `json:"settings"`
	Warnings []string         `json:"warnings"`
}

type settingsQuery struct {
	Q string `query:"q" maxLength:"200" doc:"Words that a key, or its value, has."`
}

func (a recordAPI) settings(ctx context.Context, by operate.Actor, in *settingsQuery) (*shown[InForce], error) {
	f, err := a.ops.Settings.List(ctx, by, in.Q)
	if err != nil {
		return nil, err
	}
	return &shown[InForce]{InForce{f.Path, f.Settings, f.Warnings}}, nil
}

func (a recordAPI) shape(ctx context.Context, by operate.Actor, _ *none) (*shown[operate.Shape], error) {
	s, err := a.ops.Queue.Shape(ctx, by, a.now())
	if err != nil {
		return nil, err
	}
	s.Upstreams, s.Domains = append([]operate.ShapeRow{}, s.Upstreams...), append([]operate.ShapeRow{}, s.Domains...)
	return &shown[operate.Shape]{s}, nil
}

// Header is the header of a message.
type Header struct {
	ID     string `json:"id"`
	Header string `json:"header" doc:"Its lines, unsigned, as they are kept."`
}

func (a recordAPI) headers(ctx context.Context, by operate.Actor, in *ofMessage) (*shown[Header], error) {
	h, err := a.ops.Queue.Headers(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	return &shown[Header]{Header{in.ID, string(h)}}, nil
}

func (a recordAPI) reindex(ctx context.Context, by operate.Actor, _ *asking) (*struct{}, error) {
	return nil, a.ops.Trace.Reindex(ctx, by)
}

type forgetting struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"320" doc:"An address or a login; no pattern."`
	}
}

// Forgotten is what became of a person.
type Forgotten store.Forgotten

func (a recordAPI) forget(ctx context.Context, by operate.Actor, in *forgetting) (*shown[Forgotten], error) {
	f, err := a.ops.Trace.Forget(ctx, by, in.Body.Name)
	if err != nil {
		return nil, err
	}
	f.Queued = append([]string{}, f.Queued...)
	return &shown[Forgotten]{Forgotten(f)}, nil
}
