package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"postern/mail"
	"postern/operate"
)

// Problem is what an error is answered with (RFC 9457).
type Problem struct {
	Type     string  `json:"type" format:"uri" doc:"Kind of trouble; see the list in the introduction."`
	Title    string  `json:"title" doc:"The same in words, which do not depend on the request."`
	Status   int     `json:"status" doc:"HTTP status code."`
	Detail   string  `json:"detail,omitempty" doc:"What is wrong with this request and what to do."`
	Instance string  `json:"instance,omitempty" format:"uri" doc:"Reference under which the log has more."`
	Code     string  `json:"code,omitempty" doc:"Why a token or a session was not taken, such as token-expired."`
	Errors   []Fault `json:"errors,omitempty" doc:"Everything that is wrong with the request, as far as it is known."`
}

// Fault is one thing that is wrong with a request.
type Fault struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" doc:"Where, as in body.ids[3]."`
}

// Bounds of a problem.
const (
	maxDetail = 2000 // octets
	maxFaults = 1000
)

// Error implements error.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemJSON }

const problemJSON = "application/problem+json"

// retryAfter is when to try again what is too much now, in seconds.
const retryAfter = "10"

// kind is a kind of problem.
type kind struct {
	name   string
	status int
	title  string
}

// problemType begins the type of every problem.
const problemType = "urn:postern:problem:"

// The kinds of problems.
var (
	malformed       = kind{"malformed", http.StatusBadRequest, "The body cannot be read"}
	unauthenticated = kind{"unauthenticated", http.StatusUnauthorized, "Nobody is logged in"}
	forbidden       = kind{"forbidden", http.StatusForbidden, "Not allowed"}
	secondFactor    = kind{"second-factor", http.StatusForbidden, "The second factor is asked for again"}
	foreign         = kind{"cross-origin", http.StatusForbidden, "Another site made this request"}
	notFound        = kind{"not-found", http.StatusNotFound, "There is no such thing"}
	noSuchPath      = kind{"no-such-path", http.StatusNotFound, "There is no such path"}
	wrongMethod     = kind{"wrong-method", http.StatusMethodNotAllowed, "There is no such method on this path"}
	slowBody        = kind{"slow-body", http.StatusRequestTimeout, "The body did not come in time"}
	conflict        = kind{"conflict", http.StatusConflict, "It does not fit what there is"}
	selectionGrew   = kind{"more-than-expected", http.StatusConflict, "More is selected than was expected"}
	inProgress      = kind{"in-progress", http.StatusConflict, "The same request is under way"}
	outcomeUnknown  = kind{"outcome-unknown", http.StatusConflict, "What came of the request is not known"}
	notRepeated     = kind{"done-already", http.StatusConflict, "It is done, and its answer was not kept"}
	tooLarge        = kind{"too-large", http.StatusRequestEntityTooLarge, "The body is too large"}
	wrongType       = kind{"wrong-content-type", http.StatusUnsupportedMediaType, "The body is of another type"}
	invalid         = kind{"invalid", http.StatusUnprocessableEntity, "What was asked for cannot be"}
	keyReused       = kind{"key-reused", http.StatusUnprocessableEntity, "The Idempotency-Key is of another request"}
	internal        = kind{"internal", http.StatusInternalServerError, "Something went wrong on our side"}
	busy            = kind{"busy", http.StatusServiceUnavailable, "Too much of this is under way"}
	tookTooLong     = kind{"took-too-long", http.StatusGatewayTimeout, "It took too long"}
)

// kinds are all of them, as the description lists them.
var kinds = []kind{malformed, unauthenticated, forbidden, secondFactor, foreign, notFound, noSuchPath, wrongMethod,
	slowBody, conflict, selectionGrew, inProgress, outcomeUnknown, notRepeated, tooLarge, wrongType, invalid, keyReused,
	internal, busy, tookTooLong}

func (k kind) problem(detail string) *Problem {
	return &Problem{Type: problemType + k.name, Title: k.title, Status: k.status, Detail: mail.Cut(detail, maxDetail)}
}

// refer gives a problem of ours a name, under which the log has it.
func (p *Problem) refer() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	ref := hex.EncodeToString(b[:])
	p.Instance = "urn:postern:error:" + ref
	p.Detail = "It is ours, and the log has it under " + ref + ". Look whether anything was done before you repeat it."
	return ref
}

// write answers with the problem.
func (p *Problem) write(w http.ResponseWriter) {
	b, _ := json.Marshal(p) // only texts and numbers
	h := w.Header()
	h.Set("Content-Type", problemJSON)
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // whoever asked may be gone
}

// problemOf turns an error of operate into a problem. False: it is ours, and not for the eyes of who asked.
func problemOf(err error) (*Problem, bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p, true
	}
	if table, ok := errors.AsType[*operate.TableError](err); ok {
		return tableProblem(table), true
	}
	if grown, ok := errors.AsType[*operate.GrownError](err); ok {
		return selectionGrew.problem(grown.Error()), true
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	switch kind, known := operate.KindOf(err); {
	case errors.Is(err, operate.ErrStrong):
		return secondFactor.problem(text), true
	case errors.Is(err, operate.ErrForbidden):
		return forbidden.problem(text), true
	case known && kind == operate.NotFound:
		return notFound.problem(text), true
	case known && kind == operate.Conflict:
		return conflict.problem(text), true
	case known:
		return invalid.problem(text), true
	case errors.Is(err, context.DeadlineExceeded):
		return tookTooLong.problem("Ask for less: a shorter period, fewer messages, a part of the table."), true
	}
	return nil, false
}

// tableProblem lists what is wrong in a table of accounts.
func tableProblem(e *operate.TableError) *Problem {
	p := invalid.problem(e.Error())
	for _, text := range e.Lines[:min(len(e.Lines), maxFaults)] {
		line, what, ok := strings.Cut(text, ": ")
		if !ok {
			line, what = "", text
		}
		p.Errors = append(p.Errors, Fault{mail.Cut(what, maxDetail), "line " + line})
	}
	return p
}

// kindOfStatus is what huma's own refusals are.
var kindOfStatus = map[int]kind{
	http.StatusBadRequest: malformed, http.StatusRequestTimeout: slowBody, http.StatusRequestEntityTooLarge: tooLarge,
	http.StatusUnsupportedMediaType: wrongType, http.StatusUnprocessableEntity: invalid,
}

// toProblem is a huma.Transformer that makes problems of huma's own refusals. It leaves out the values, which may be
// passwords.
func toProblem(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	kind, ok := kindOfStatus[e.Status]
	if !ok {
		kind.name, kind.status, kind.title = internal.name, e.Status, internal.title
	}
	p := kind.problem("The request does not fit the description of the API.")
	for _, d := range e.Errors[:min(len(e.Errors), maxFaults)] {
		p.Errors = append(p.Errors, Fault{mail.Cut(d.Message, maxDetail), mail.Cut(d.Location, maxDetail)})
	}
	return p, nil
}
