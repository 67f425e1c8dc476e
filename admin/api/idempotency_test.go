package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/operate"
	"postern/relay/store"
)

func keyed(key, method, path, body string) *http.Request {
	req := request(method, path, body)
	req.Header.Set("Idempotency-Key", key)
	return req
}

func TestRepeatedRequest(t *testing.T) {
	r := newRig(t)
	r.account("carl", false)
	note := func(text string) *http.Request { return keyed("k1", "PATCH", "/logins/carl", `{"note":"`+text+`"}`) }
	first := r.do(admin, note("one"))
	if first.StatusCode != http.StatusOK || first.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %s", first.StatusCode, first.body)
	}
	r.send(http.MethodPatch, "/logins/carl", `{"note":"two"}`, http.StatusOK, nil)
	again := r.do(admin, note("one"))
	if again.StatusCode != http.StatusOK || string(again.body) != string(first.body) ||
		again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeated: %d %s", again.StatusCode, again.body)
	}
	var now operate.Account
	if r.get("/logins/carl", &now); now.Note != "two" {
		t.Errorf("it was done again: %q", now.Note)
	}
	for name, req := range map[string]*http.Request{
		"another body": note("three"), "another path": keyed("k1", "PATCH", "/devices/carl", `{"note":"one"}`),
		"another method": keyed("k1", "POST", "/logins/carl/lock", `{"note":"one"}`),
	} {
		if got := r.do(admin, req); got.problem() != "key-reused" || got.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	if got := r.do(token, note("three")); got.StatusCode != http.StatusOK {
		t.Errorf("another caller's key: %d %s", got.StatusCode, got.body)
	}
	r.now = r.now.Add(store.AnswersFor)
	if got := r.do(admin, note("four")); got.StatusCode != http.StatusOK {
		t.Errorf("a day later: %d %s", got.StatusCode, got.body)
	}
	for _, key := range []string{strings.Repeat("k", maxKey+1), "a\x01b", "ä"} {
		if got := r.do(admin, keyed(key, "PATCH", "/logins/carl", `{"note":"x"}`)); got.problem() != "invalid" {
			t.Errorf("key %q: %d %s", key, got.StatusCode, got.body)
		}
	}
}

// A refusal changed nothing, so the same request may succeed later.
func TestRefusalIsNotKept(t *testing.T) {
	r := newRig(t)
	edit := func() *http.Request { return keyed("k", "PATCH", "/logins/carl", `{"note":"x"}`) }
	if got := r.do(admin, edit()); got.problem() != "not-found" {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	r.account("carl", false)
	if got := r.do(admin, edit()); got.StatusCode != http.StatusOK {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// What was removed is said to be removed again, though there is no such account any more.
func TestRepeatedRemoval(t *testing.T) {
	r := newRig(t)
	r.account("carl", false)
	for _, replayed := range []string{"", "true"} {
		got := r.do(admin, keyed("k", "DELETE", "/logins/carl", ""))
		if got.StatusCode != http.StatusNoContent || len(got.body) > 0 || got.Header.Get("Content-Type") != "" ||
			got.Header.Get("Idempotency-Replayed") != replayed {
			t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
		}
	}
}

// A password is shown once, and is nowhere in the store.
func TestPasswordIsNotKept(t *testing.T) {
	r := newRig(t)
	var made operate.Credential
	add := func() *http.Request { return keyed("k", "POST", "/logins", `{"login":"carl","without_sender":true}`) }
	first := r.do(admin, add())
	if first.json(t, &made); first.StatusCode != http.StatusCreated || made.Password == "" {
		t.Fatalf("%d %s", first.StatusCode, first.body)
	}
	if got := r.do(admin, add()); got.problem() != "done-already" || strings.Contains(string(got.body), made.Password) {
		t.Errorf("repeated: %d %s", got.StatusCode, got.body)
	}
	for _, to := range r.api.routes {
		for _, word := range []string{"add", "password", "import"} {
			if strings.HasPrefix(to.path, "/logins") && strings.HasSuffix(to.id, "-"+word) && !to.once {
				t.Errorf("the answer of %s is kept", to.id)
			}
		}
	}
}

// spy looks at what is kept, and fails when it is told.
type spy struct {
	*store.Store
	mu                   sync.Mutex
	finished             int
	failBegin, failFinal error
}

func (s *spy) BeginAnswer(ctx context.Context, now time.Time, caller, key, request [32]byte) (*store.Answer, error) {
	if s.failBegin != nil {
		return nil, s.failBegin
	}
	return s.Store.BeginAnswer(ctx, now, caller, key, request)
}

func (s *spy) FinishAnswer(ctx context.Context, key [32]byte, status int, body []byte) error {
	s.mu.Lock()
	s.finished++
	s.mu.Unlock()
	if s.failFinal != nil {
		return s.failFinal
	}
	return s.Store.FinishAnswer(ctx, key, status, body)
}

// Of a hundred that race with one key, one is done; the others are told that it is under way, or its answer.
func TestRace(t *testing.T) {
	r := newRig(t)
	s := &spy{Store: r.store}
	r.api.answers.store = s
	r.account("carl", false)
	var running sync.WaitGroup
	answers := make([]answer, 100)
	for i := range answers {
		running.Go(func() {
			req := keyed("k", "POST", "/logins/carl/lock", `{"reason":"race"}`)
			answers[i] = r.do(admin, req)
		})
	}
	running.Wait()
	if s.finished != 1 {
		t.Errorf("it was done %d times", s.finished)
	}
	first := 0
	for _, a := range answers {
		switch {
		case a.StatusCode == http.StatusOK && a.Header.Get("Idempotency-Replayed") == "":
			first++
		case a.StatusCode == http.StatusOK, a.StatusCode == http.StatusConflict && a.problem() == "in-progress":
		default:
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
	if first != 1 {
		t.Errorf("%d were answered as the first", first)
	}
}

// While the first one waits, the second is told so.
func TestUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answering{store: &forgetful{}, now: time.Now, running: map[[32]byte]bool{}}
		let := make(chan struct{})
		slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-let
			w.WriteHeader(http.StatusOK)
		})
		ask := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			a.once(w, keyed("k", "POST", "/x", "{}"), admin, &route{}, []byte("{}"), slow)
			return w
		}
		done := make(chan int)
		go func() { done <- ask().Code }()
		synctest.Wait()
		if w := ask(); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "in-progress") {
			t.Errorf("the second: %d %s", w.Code, w.Body)
		}
		close(let)
		if code := <-done; code != http.StatusOK {
			t.Errorf("the first: %d", code)
		}
		if w := ask(); w.Code != http.StatusOK {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
}

// forgetful keeps nothing.
type forgetful struct{}

func (*forgetful) BeginAnswer(context.Context, time.Time, [32]byte, [32]byte, [32]byte) (*store.Answer, error) {
	return nil, nil
}
func (*forgetful) FinishAnswer(context.Context, [32]byte, int, []byte) error { return nil }
func (*forgetful) DropAnswer(context.Context, [32]byte) error                { return nil }
func (*forgetful) Shared() bool                                              { return false }
func (*forgetful) Secret(context.Context, string, int) ([]byte, error)       { return make([]byte, 32), nil }

// What was begun before a crash is never done again by itself.
func TestAfterACrash(t *testing.T) {
	r := newRig(t)
	s := &spy{Store: r.store, failFinal: errors.New("the disk is gone")}
	r.api.answers.store = s
	r.account("carl", false)
	lock := func() *http.Request { return keyed("k", "POST", "/logins/carl/lock", `{"reason":"x"}`) }
	if got := r.do(admin, lock()); got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	s.failFinal = nil
	if got := r.do(admin, lock()); got.problem() != "outcome-unknown" || s.finished != 1 {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	s.failBegin = fmt.Errorf("no space on /var/lib/secret-place")
	got := r.do(admin, keyed("k2", "POST", "/logins/carl/lock", `{}`))
	if got.StatusCode != http.StatusInternalServerError || strings.Contains(string(got.body), "secret-place") ||
		!strings.Contains(r.log.String(), "secret-place") || s.finished != 1 {
		t.Errorf("a store that fails: %d %s\n%s", got.StatusCode, got.body, r.log)
	}
}

// Nothing of what is asked with a key stands in the store in clear.
func TestAnswersAreSealed(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Dir: dir, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.api.answers.store = s
	r.account("carl", false)
	if got := r.do(admin, keyed("k-e-y", "PATCH", "/logins/carl", `{"note":"very private"}`)); got.StatusCode != 200 {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil || strings.Contains(string(b), "very private") || strings.Contains(string(b), "k-e-y") {
			t.Errorf("%s: in clear, or %v", f.Name(), err)
		}
	}
}

// amongNodes is a store that other nodes use too.
type amongNodes struct{ *spy }

func (amongNodes) Shared() bool { return true }

// What another node is at is neither done nor called unknown: who asked would make a new key, and have it done twice.
// When that node cannot be at it any more, nobody knows what came of it.
func TestUnderWayAtAnotherNode(t *testing.T) {
	r := newRig(t)
	s := &spy{Store: r.store, failFinal: errors.New("the node has not ended yet")}
	r.api.answers.store = amongNodes{s}
	r.account("carl", false)
	lock := func() *http.Request { return keyed("k", "POST", "/logins/carl/lock", `{"reason":"x"}`) }
	if got := r.do(admin, lock()); got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	s.failFinal = nil
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{0, "in-progress"}, {usualTime, "in-progress"}, {2 * usualTime, "outcome-unknown"}} {
		r.now = r.now.Add(c.after)
		if got := r.do(admin, lock()); got.problem() != c.want || s.finished != 1 {
			t.Errorf("after %v: %d %s", c.after, got.StatusCode, got.body)
		}
	}
	other := keyed("k", "POST", "/logins/carl/lock", `{"reason":"y"}`)
	if got := r.do(admin, other); got.problem() != "key-reused" {
		t.Errorf("another request: %d %s", got.StatusCode, got.body)
	}
}
