package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/store"
)

// Answers keeps what requests with an Idempotency-Key were answered. *store.Store is one.
type Answers interface {
	BeginAnswer(ctx context.Context, now time.Time, caller, key, request [32]byte) (*store.Answer, error)
	FinishAnswer(ctx context.Context, key [32]byte, status int, body []byte) error
	DropAnswer(ctx context.Context, key [32]byte) error
	Secret(ctx context.Context, name string, n int) ([]byte, error)
	// Shared reports whether other nodes answer requests as well.
	Shared() bool
}

// maxKey bounds an Idempotency-Key, in octets.
const maxKey = 128

// answering does each request with an Idempotency-Key once.
type answering struct {
	store Answers
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	running map[[32]byte]bool // keys of requests under way
}

// once serves a request whose Idempotency-Key was not used before, and answers one that was from what is kept. The
// order: note that it is begun, do it, keep the answer; so after a crash nothing is done twice.
func (a *answering) once(w http.ResponseWriter, r *http.Request, by operate.Actor, to *route, body []byte,
	next http.Handler) {
	given := r.Header.Values("Idempotency-Key")
	if len(given) > 1 || len(given[0]) > maxKey || mail.Printable(given[0]) != given[0] || !mail.IsASCII(given[0]) {
		invalid.problem(fmt.Sprintf("The Idempotency-Key must be one of at most %d visible characters.",
			maxKey)).write(w)
		return
	}
	caller, key, request, err := a.digests(r, by, given[0], body)
	if err != nil {
		a.fault(w, r, err)
		return
	}
	if !a.enter(key) {
		inProgress.problem("Wait for the answer of the first one.").write(w)
		return
	}
	defer a.leave(key)
	prior, err := a.store.BeginAnswer(r.Context(), a.now(), caller, key, request)
	switch {
	case err != nil:
		a.fault(w, r, err)
	case prior != nil:
		if prior.Status == 0 && prior.Request == request && a.elsewhere(prior, to) {
			inProgress.problem("Wait for the answer of the first one.").write(w)
			return
		}
		replay(w, prior, request, to)
	default:
		a.first(w, r, key, to, next)
	}
}

// first serves a request and keeps its answer, unless it was refused: then nothing was changed, and it may be repeated.
// Nobody knows how far one has come that failed on our side, so that answer is kept.
func (a *answering) first(w http.ResponseWriter, r *http.Request, key [32]byte, to *route, next http.Handler) {
	answer := newRecorder()
	next.ServeHTTP(answer, r)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), usualTime)
	defer cancel()
	var err error
	switch refused := answer.status >= 400 && answer.status < 500 || answer.status == busy.status; {
	case refused:
		err = a.store.DropAnswer(ctx, key)
	case to.once && answer.status < 300:
		err = a.store.FinishAnswer(ctx, key, answer.status, nil)
	default:
		err = a.store.FinishAnswer(ctx, key, answer.status, append([]byte{}, answer.body.Bytes()...))
	}
	if err != nil { // the caller has the answer; who repeats the request is told that nobody knows
		a.log.Error("the API cannot keep an answer", "path", r.URL.Path, "err", err)
	}
	answer.send(w)
}

// replay answers a request that was made before.
func replay(w http.ResponseWriter, prior *store.Answer, request [32]byte, to *route) {
	switch {
	case prior.Request != request:
		keyReused.problem("Make a new key for each request.").write(w)
	case prior.Status == 0:
		outcomeUnknown.problem("It was begun, and we stopped before its end. Look whether it was done; to repeat it, " +
			"make a new key.").write(w)
	case prior.Body == nil && to.once:
		notRepeated.problem("Passwords are shown once and kept nowhere: give it a new one if you need one.").write(w)
	case prior.Body == nil:
		notRepeated.problem("The answer was too long to be kept.").write(w)
	default:
		w.Header().Set("Idempotency-Replayed", "true")
		answer := newRecorder()
		switch {
		case prior.Status >= 400:
			answer.header.Set("Content-Type", problemJSON)
		case len(prior.Body) > 0:
			answer.header.Set("Content-Type", "application/json")
		}
		answer.status = prior.Status
		_, _ = answer.body.Write(prior.Body) // never fails
		answer.send(w)
	}
}

// elsewhere reports whether another node may still be at a request that was begun.
func (a *answering) elsewhere(prior *store.Answer, to *route) bool {
	longest := to.limit() + usualTime // with keeping its answer
	return a.store.Shared() && a.now().Before(prior.Begun.Add(longest))
}

func (a *answering) enter(key [32]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running[key] {
		return false
	}
	a.running[key] = true
	return true
}

func (a *answering) leave(key [32]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, key)
}

// digests name a caller, a key of theirs, and a request. They are keyed: a body may have a password, which a digest
// that anybody can compute would give away to whoever can guess it.
func (a *answering) digests(r *http.Request, by operate.Actor, given string, body []byte) (caller, key,
	request [32]byte, err error) {
	secret, err := a.store.Secret(r.Context(), "api-answers", sha256.Size)
	if err != nil {
		return caller, key, request, err
	}
	caller = digest(secret, "caller", string(by.Channel), by.Name)
	key = digest(secret, "key", string(by.Channel), by.Name, given)
	return caller, key, digest(secret, "request", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body)), nil
}

func digest(secret []byte, parts ...string) (sum [32]byte) {
	h := hmac.New(sha256.New, secret)
	for _, p := range parts {
		writePart(h, p)
	}
	h.Sum(sum[:0])
	return sum
}

func writePart(h hash.Hash, part string) {
	_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // a hash never fails
	_, _ = h.Write([]byte(part))
}

// fault answers with trouble of ours.
func (a *answering) fault(w http.ResponseWriter, r *http.Request, err error) {
	p := internal.problem("")
	a.log.Error("the API failed", "ref", p.refer(), "method", r.Method, "path", r.URL.Path, "err", err)
	p.write(w)
}
