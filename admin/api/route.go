package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"postern/operate"
)

// route is one operation of the API. To add one, write it into the table of its file, and its right and a request into
// the tests' tables.
type route struct {
	method, path, id string
	tag              string
	summary          string
	about            string              // the rest of its description
	needs            []operate.Operation // any of them lets a request in; what is done looks again
	status           int                 // of success; 0: 200
	faults           []kind              // beside those that every route of its method has
	once             bool                // the answer has a password and is not kept
	table            bool                // takes a table of accounts instead of JSON
	media            string              // of an answer that is not what its type says; with its schema
	schema           *huma.Schema
	streams          bool // the answer is too large to be kept back until it is whole
	slow             bool // asks others, which may take minutes
	register         func(huma.API, huma.Operation)
}

// handle makes a route of a function that answers it.
func handle[I, O any](s *server, r route, do func(context.Context, operate.Actor, *I) (*O, error)) route {
	r.register = func(api huma.API, op huma.Operation) {
		huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
			by, _ := operate.ActorOf(ctx)
			out, err := do(ctx, by, in)
			if err != nil {
				return nil, s.refusal(r.id, by, err)
			}
			return out, nil
		})
	}
	return r
}

// refusal is the problem that an error is answered with. What is ours is logged.
func (s *server) refusal(id string, by operate.Actor, err error) error {
	if p, ok := problemOf(err); ok {
		return p
	}
	p := internal.problem("")
	s.Logger.Error("the API failed", "ref", p.refer(), "operation", id, "by", by.Name, "err", err)
	return p
}

// table is every route.
func (s *server) table() []route {
	return slices.Concat(s.statusRoutes(), s.messageRoutes(), s.queueRoutes(), s.loginRoutes(),
		s.deviceRoutes(), learningRoutes(s), s.importRoutes(), s.lockoutRoutes(), s.domainRoutes(),
		s.alertRoutes(), s.recordRoutes(), s.lookRoutes(), keyRoutes(s), accessRoutes(s), certificateRoutes(s),
		appPasswordRoutes(s), nodeRoutes(s))
}

// operation describes a route.
func (to *route) operation(api huma.API) huma.Operation {
	op := huma.Operation{
		Method: to.method, Path: to.path, OperationID: to.id, Tags: []string{to.tag}, Summary: to.summary,
		Description: to.described(), DefaultStatus: to.status, Security: to.security(),
		MaxBodyBytes: maxTable + 1, // guard has bounded it already
		Responses:    map[string]*huma.Response{},
	}
	if to.media != "" {
		op.Responses["200"] = &huma.Response{Content: map[string]*huma.MediaType{to.media: {Schema: to.schema}}}
	}
	if to.changes() {
		op.Parameters = []*huma.Param{{Name: "Idempotency-Key", In: "header", Description: "Makes it safe to repeat " +
			"the request: see the introduction.", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: new(maxKey)}}}
	}
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	for _, k := range to.problems() {
		code := strconv.Itoa(k.status)
		if op.Responses[code] == nil {
			op.Responses[code] = &huma.Response{Content: map[string]*huma.MediaType{problemJSON: {Schema: schema}}}
		}
		if d := &op.Responses[code].Description; *d == "" {
			*d = k.title + " (`" + k.name + "`)."
		} else {
			*d += " " + k.title + " (`" + k.name + "`)."
		}
	}
	return op
}

// problems are the kinds that a route may be answered with.
func (to *route) problems() []kind {
	all := []kind{unauthenticated, forbidden, internal, tookTooLong, invalid}
	if to.changes() {
		all = append(all, foreign, inProgress, outcomeUnknown, notRepeated, keyReused, malformed)
	}
	if to.method == http.MethodPost || to.method == http.MethodPatch {
		all = append(all, tooLarge, wrongType, slowBody)
	}
	if slices.ContainsFunc(to.needs, func(op operate.Operation) bool { return op.Strong }) {
		all = append(all, secondFactor)
	}
	return append(all, to.faults...)
}

// described is a route's description with the rights that it needs.
func (to *route) described() string {
	var b strings.Builder
	if to.about != "" {
		b.WriteString(to.about + "\n\n")
	}
	for _, op := range to.needs {
		name := "Needs"
		if len(to.needs) > 1 {
			name = "`" + op.Name + "` needs"
		}
		switch {
		case op.Strong:
			fmt.Fprintf(&b, "%s the role %s and the second factor anew; tokens may not. ", name, op.Role)
		default:
			fmt.Fprintf(&b, "%s the scope `%s` of a token, or the role %s. ", name, op.Scope, op.Role)
		}
	}
	if to.changes() && slices.ContainsFunc(to.needs, func(op operate.Operation) bool { return op.Audit }) {
		b.WriteString("The audit keeps who did it. ")
	}
	return strings.TrimSpace(b.String())
}

// security names the scopes that let a token in.
func (to *route) security() []map[string][]string {
	all := []map[string][]string{{"session": {}}}
	for _, op := range to.needs {
		scope := map[string][]string{"token": {string(op.Scope)}}
		same := func(s map[string][]string) bool { return reflect.DeepEqual(s, scope) }
		if !op.Strong && !slices.ContainsFunc(all, same) {
			all = append(all, scope)
		}
	}
	return all
}

// listed is an answer with a part of a list.
type listed[T any] struct {
	Link string `header:"Link" doc:"The next page, rel=\"next\"."`
	Body T
}

// made is an answer with what was made.
type made[T any] struct {
	Location string `header:"Location"`
	Body     T
}

// shown is any other answer.
type shown[T any] struct{ Body T }

// description is the head of the OpenAPI description.
func (s *server) description() *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Postern", Version: "1", Description: introduction(),
			License: &huma.License{Name: "MIT", Identifier: "MIT"}},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"token": {Type: "http", Scheme: "bearer", Description: "A token, which begins with pst_. Each " +
					"operation names the scope that it needs; `admin` is enough for all, and any is for what needs " +
					"`read`."},
				"session": {Type: "apiKey", In: "cookie", Name: "__Host-postern", Description: "A session of the " +
					"console."},
			},
		},
	}
}

// render writes the description as it is served and kept.
func render(o *huma.OpenAPI) []byte {
	delete(o.Components.Schemas.Map(), "ErrorModel") // huma's own problems, which toProblem replaces
	delete(o.Components.Schemas.Map(), "ErrorDetail")
	b, err := json.Marshal(o)
	var out bytes.Buffer
	if err == nil {
		err = json.Indent(&out, b, "", "  ")
	}
	if err != nil {
		panic(fmt.Sprintf("api: describe it: %v", err)) // of our own types: a test renders it
	}
	return append(out.Bytes(), '\n')
}

func introduction() string {
	var b strings.Builder
	b.WriteString(`What a person may do with Postern, for programs.

Send a token as ` + "`Authorization: Bearer pst_…`" + `. Bodies are JSON (a table of accounts is CSV), and their
type must be named; names that are unknown or there twice are refused. Lists come in pages: ` + "`next`" + ` of an
answer is the ` + "`cursor`" + ` of the next request, and the field Link has the whole address.

Whatever changes something takes an Idempotency-Key, a text of your choice. The same request with the same key within
24 hours is not done again: it gets the first one's answer, with the field Idempotency-Replayed. Refusals (4xx, 503)
are not kept: they changed nothing. An answer with a password is not kept either: the repeated request is told that
it is done. 10 000 keys are kept; where there are more, whoever has most loses their oldest.

Errors are problems (RFC 9457). Their types:

`)
	for _, k := range kinds {
		fmt.Fprintf(&b, "- `%s%s` (%d): %s.\n", problemType, k.name, k.status, k.title)
	}
	return b.String()
}
