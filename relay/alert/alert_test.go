package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rig is an Alerter whose posts end here, in a bubble of synctest.
type rig struct {
	t       *testing.T
	alerter *Alerter
	stop    func() // ends Run and waits for it
	log     *bytes.Buffer

	mu     sync.Mutex // guards what follows
	got    []arrival
	counts map[string]int
	answer func(ctx context.Context, h Hook, d Document) result
}

// arrival is a document that a hook was offered.
type arrival struct {
	hook string
	at   time.Time
	Document
}

func (a arrival) String() string {
	words := fmt.Sprintf("%s %s %s", a.hook, a.Event, a.Subject)
	if a.Resolved {
		words += " resolved"
	}
	if a.Repeated {
		words += " repeated"
	}
	return words
}

const hookURL = "https://hooks.example.com/services/SECRETTOKEN"

func newRig(t *testing.T, file string, hooks ...Hook) *rig {
	r := &rig{t: t, log: &bytes.Buffer{}, counts: make(map[string]int)}
	r.alerter = New(Options{
		File: file, Logger: slog.New(slog.NewTextHandler(r, nil)), post: r.post,
		Count: func(e Event, outcome string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.counts[string(e)+" "+outcome]++
		},
	})
	if hooks == nil {
		hooks = []Hook{{Name: "a", URL: hookURL, QueueAge: time.Hour}}
	}
	r.alerter.Use("relay.example.com", hooks)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.alerter.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(r.stop)
	return r
}

// Write takes the log.
func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *rig) post(ctx context.Context, h Hook, doc Document) result {
	var d Document
	if err := json.Unmarshal(doc.encode(), &d); err != nil {
		r.t.Errorf("%v in %+v", err, doc)
	}
	r.mu.Lock()
	r.got = append(r.got, arrival{h.Name, time.Now(), d})
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		return answer(ctx, h, d)
	}
	return result{}
}

// take returns what was offered since the last time, in words.
func (r *rig) take() (words []string) {
	for _, a := range r.arrivals() {
		words = append(words, a.String())
	}
	return words
}

func (r *rig) arrivals() []arrival {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

func (r *rig) want(words ...string) {
	r.t.Helper()
	if got := r.take(); !slices.Equal(got, words) {
		r.t.Errorf("told %q, want %q", got, words)
	}
}

func (r *rig) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[what]
}

// down makes hooks fail until up is called.
func (r *rig) down() (up func()) {
	down := true
	r.answer = func(context.Context, Hook, Document) result {
		if down {
			return result{err: errors.New("down")}
		}
		return result{}
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		down = false
	}
}

func paused(subject string) Condition {
	return Condition{Event: UpstreamPaused, Subject: subject, Group: "office", Summary: "It refuses us.",
		Over: "It works again."}
}

func TestToldOnceOfTheBeginningAndOnceOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		for range 100 {
			r.alerter.Begin(paused("office"))
			time.Sleep(5 * time.Second)
		}
		r.want("a upstream-paused office")
		r.alerter.End(UpstreamPaused, "office", "")
		r.alerter.End(UpstreamPaused, "office", "")
		r.want("a upstream-paused office resolved")
		r.alerter.End(UpstreamPaused, "another", "")
		r.want()
		r.alerter.Begin(paused("office"))
		r.want("a upstream-paused office")
		if r.count("upstream-paused sent") != 3 {
			t.Errorf("counted %v", r.counts)
		}
	})
}

func TestWhatLastsIsRepeatedDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		began := time.Now()
		for time.Since(began) < 5*24*time.Hour-time.Hour {
			c := paused("office")
			c.Details = map[string]string{"next_try": fmt.Sprint(time.Since(began))}
			r.alerter.Begin(c)
			time.Sleep(10 * time.Minute)
		}
		got := r.arrivals()
		if len(got) != 5 {
			t.Fatalf("told %d times in five days: %v", len(got), got)
		}
		for i, a := range got {
			age := a.at.Sub(began)
			if a.Repeated != (i > 0) || age < time.Duration(i)*24*time.Hour ||
				age > time.Duration(i)*(24*time.Hour+2*time.Minute) || !a.Since.Equal(inUTC(began)) {
				t.Errorf("number %d after %s, since %s: %v", i, age, a.Since, a)
			}
		}
		if got[4].Details["next_try"] == got[0].Details["next_try"] {
			t.Error("a repetition says what was, not what is")
		}
		if !strings.Contains(got[1].Text, "STILL upstream-paused") {
			t.Errorf("text: %s", got[1].Text)
		}
	})
}

func TestARestartNeitherRepeatsNorForgets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alerts.json")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, file)
		r.alerter.Begin(paused("office"))
		r.alerter.Begin(paused("backup"))
		r.want("a upstream-paused office", "a upstream-paused backup")
		r.stop()

		time.Sleep(time.Hour)
		r = newRig(t, file)
		if open := r.alerter.Open(UpstreamPaused); len(open) != 2 || open[0].Over != "It works again." {
			t.Errorf("open after the restart: %+v", open)
		}
		r.alerter.Begin(paused("office"))
		r.want()
		r.alerter.End(UpstreamPaused, "backup", "")
		r.want("a upstream-paused backup resolved")
		r.mu.Lock()
		r.answer = func(context.Context, Hook, Document) result { return result{err: errors.New("down")} }
		r.mu.Unlock()
		r.alerter.Set(UpstreamPaused, nil)
		r.take()
		r.stop() // the end could not be told
		r.take()

		r = newRig(t, file)
		r.want() // nor is it known to this process
		r.alerter.Set(UpstreamPaused, nil)
		r.want("a upstream-paused office resolved")
		r.stop()
		r = newRig(t, file)
		r.alerter.Set(UpstreamPaused, nil)
		r.want()
	})
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if b, _ := os.ReadFile(file); bytes.Contains(b, []byte("SECRETTOKEN")) {
		t.Errorf("the file has the URL: %s", b)
	}
}

func TestTheEndOfWhatAnEarlierProcessTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alerts.json")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, file)
		r.alerter.Begin(paused("office"))
		c := Condition{Event: LoginLocked, Subject: "login a", Until: time.Now().Add(time.Hour)}
		r.alerter.Begin(c)
		r.take()
		r.stop()
		r = newRig(t, file)
		time.Sleep(10 * 24 * time.Hour)
		r.want("a login-locked login a resolved") // what nobody has seen since is not repeated
		time.Sleep(21 * 24 * time.Hour)
		r.want()
		if open := r.alerter.Open(UpstreamPaused); len(open) != 0 {
			t.Errorf("never forgotten: %+v", open)
		}
	})
}

// Of what stands in the file, no event is told of that nobody knows, and no time keeps one silent for ever.
func TestOddEntriesOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alerts.json")
	content := `{"version":1,"hooks":{"` + idOf(hookURL) + `":[
		{"event":"moon-phase","subject":"moon","summary":"x","since":"2026-01-01T00:00:00Z",
			"told":"2026-01-01T00:00:00Z","ending":true},
		{"event":"upstream-paused","subject":"office","summary":"x","since":"2026-01-01T00:00:00Z",
			"told":"2199-01-01T00:00:00Z"}]}}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, file)
		r.want()
		r.alerter.Begin(paused("office"))
		time.Sleep(repeatAfter + lookPeriod)
		r.want("a upstream-paused office repeated")
	})
}

func TestAFileThatIsNotOursIsNoHindrance(t *testing.T) {
	for name, content := range map[string]string{
		"text": "nonsense", "version": `{"version":2}`, "empty": "", "null": `{"version":1,"hooks":{"x":[null]}}`,
		"untold": `{"version":1,"hooks":{"x":[{"event":"test"}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "alerts.json")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, file)
				r.alerter.Begin(paused("office"))
				r.want("a upstream-paused office")
				if !strings.Contains(r.log.String(), "some may be repeated") {
					t.Errorf("log: %s", r.log)
				}
			})
		})
	}
}

func TestAFileThatCannotBeWrittenIsNoHindrance(t *testing.T) {
	file := filepath.Join(t.TempDir(), "missing", "alerts.json")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, file)
		for i := range 3 {
			r.alerter.Begin(paused(fmt.Sprint(i)))
			r.take()
		}
		if n := strings.Count(r.log.String(), "cannot record which"); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

func TestWaitsGrowAndRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		tries := 0
		r.answer = func(context.Context, Hook, Document) result {
			switch tries++; {
			case tries == 3:
				return result{err: errors.New("slow down"), after: 40 * time.Minute}
			case tries < 14:
				return result{err: errors.New("down")}
			}
			return result{}
		}
		r.alerter.Begin(paused("office"))
		time.Sleep(4 * time.Hour)
		got := r.arrivals()
		if len(got) != 14 {
			t.Fatalf("%d tries", len(got))
		}
		for i := 1; i < len(got); i++ {
			wait := got[i].at.Sub(got[i-1].at)
			nominal := min(retryFirst<<(i-1), retryMost)
			if i == 3 {
				nominal = 40 * time.Minute
				if wait < nominal {
					t.Errorf("asked %s after it said not before %s", wait, nominal)
				}
			}
			if wait < nominal*8/10 || wait > nominal*12/10 {
				t.Errorf("wait %d is %s, around %s", i, wait, nominal)
			}
		}
		if r.count("upstream-paused sent") != 1 || r.count("upstream-paused failed") != 0 {
			t.Errorf("counted %v", r.counts)
		}
	})
}

func TestARefusalForGoodIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		r.answer = func(context.Context, Hook, Document) result { return result{err: errors.New("404"), final: true} }
		r.alerter.Begin(paused("office"))
		time.Sleep(23 * time.Hour)
		r.want("a upstream-paused office")
		r.alerter.Begin(paused("office"))
		time.Sleep(2 * time.Hour)
		r.want("a upstream-paused office") // it lasts; the hook may have been mended
		r.alerter.End(UpstreamPaused, "office", "")
		r.want() // of what it never heard
		if r.count("upstream-paused failed") != 2 {
			t.Errorf("counted %v", r.counts)
		}
	})
}

func TestAnAlertIsGivenUpAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		r.answer = func(context.Context, Hook, Document) result { return result{err: errors.New("down")} }
		r.alerter.Begin(paused("office"))
		time.Sleep(time.Hour)
		r.alerter.End(UpstreamPaused, "office", "")
		time.Sleep(30 * time.Hour)
		r.take()
		if r.count("upstream-paused failed") != 1 {
			t.Errorf("counted %v", r.counts)
		}
		r.mu.Lock()
		r.answer = nil
		r.mu.Unlock()
		time.Sleep(time.Hour)
		r.want() // the end of what was never told
		r.alerter.Begin(paused("office"))
		r.want("a upstream-paused office")
	})
}

// While a hook is down, what began and ended is told in order when it is back, and of what there is too much the
// newest.
func TestAHookThatWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		up := r.down()
		r.alerter.Begin(paused("office"))
		r.alerter.End(UpstreamPaused, "office", "")
		for i := range 2 * maxWaiting {
			c := paused(fmt.Sprint("u", i))
			c.Group = "" // of no group, else they would be told together
			r.alerter.Begin(c)
		}
		r.take()
		up()
		time.Sleep(time.Hour)
		got := r.take()
		if len(got) != maxWaiting || got[len(got)-1] != fmt.Sprintf("a upstream-paused u%d", 2*maxWaiting-1) {
			t.Errorf("%d: %q", len(got), got)
		}
		if n := r.count("upstream-paused failed"); n != maxWaiting+2 {
			t.Errorf("%d given up", n)
		}
	})
}

func TestManyOfAGroupAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		all := func() {
			for i := range 500 {
				r.alerter.Begin(paused(fmt.Sprint("person", i)))
			}
		}
		all()
		c := paused("other group")
		c.Group = "backup"
		r.alerter.Begin(c)
		got := r.take()
		if len(got) != maxOpen+2 || got[maxOpen] != "a upstream-paused others: office" ||
			got[maxOpen+1] != "a upstream-paused other group" {
			t.Fatalf("%q", got)
		}
		for range 100 {
			all()
			time.Sleep(5 * time.Minute)
		}
		r.want()
		for i := range 500 {
			r.alerter.End(UpstreamPaused, fmt.Sprint("person", i), "")
		}
		time.Sleep(othersLife)
		got = r.take()
		if len(got) != maxOpen+1 || got[maxOpen] != "a upstream-paused others: office resolved" {
			t.Errorf("%q", got)
		}
		if open := r.alerter.Open(UpstreamPaused); len(open) != 1 {
			t.Errorf("%+v", open)
		}
	})
}

func TestAStalledHookHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", Hook{Name: "stalled", URL: hookURL}, Hook{Name: "b", URL: hookURL + "2"})
		r.answer = func(ctx context.Context, h Hook, _ Document) result {
			if h.Name == "stalled" {
				<-ctx.Done()
				return result{err: ctx.Err()}
			}
			return result{}
		}
		for i := range 5 {
			r.alerter.Begin(paused(fmt.Sprint(i)))
		}
		synctest.Wait()
		if n := len(slices.DeleteFunc(r.take(), func(s string) bool { return !strings.HasPrefix(s, "b ") })); n != 5 {
			t.Errorf("the other hook heard of %d", n)
		}
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > drainTime {
			t.Errorf("the end took %s", took)
		}
	})
}

func TestTheEndOfTheProcess(t *testing.T) {
	t.Run("tells what waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "")
			up := r.down()
			for i := range 3 {
				r.alerter.Begin(paused(fmt.Sprint(i)))
			}
			r.want("a upstream-paused 0")
			up()
			began := time.Now()
			r.stop()
			r.want("a upstream-paused 0", "a upstream-paused 1", "a upstream-paused 2")
			if time.Since(began) != 0 {
				t.Error("it waited")
			}
		})
	})
	t.Run("does not ask again who said when", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "")
			r.answer = func(context.Context, Hook, Document) result {
				return result{err: errors.New("429"), after: time.Hour}
			}
			r.alerter.Begin(paused("office"))
			r.want("a upstream-paused office")
			r.stop()
			r.want()
		})
	})
	t.Run("asks who is down once more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "")
			r.answer = func(context.Context, Hook, Document) result { return result{err: errors.New("down")} }
			r.alerter.Begin(paused("office"))
			r.take()
			r.stop()
			r.want("a upstream-paused office")
		})
	})
}

func TestHooksFollowTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := Hook{Name: "a", URL: hookURL, Events: []Event{UpstreamPaused, LoginLocked}}
		b := Hook{Name: "b", URL: hookURL + "2", Events: []Event{SecretExpiry}}
		r := newRig(t, "", a, b)
		r.alerter.Begin(paused("office"))
		r.alerter.Begin(Condition{Event: LoginLocked, Subject: "login x"})
		r.want("a upstream-paused office", "a login-locked login x")

		a.Events = []Event{UpstreamPaused}
		c := Hook{Name: "c", URL: hookURL + "3"}
		r.alerter.Use("relay.example.com", []Hook{c, a})
		r.alerter.Begin(paused("office"))
		r.want("c upstream-paused office") // it is new and is told what holds
		r.alerter.End(LoginLocked, "login x", "")
		r.want() // who does not ask any more hears nothing more
		r.alerter.End(UpstreamPaused, "office", "")
		got := r.take()
		slices.Sort(got)
		if !slices.Equal(got, []string{"a upstream-paused office resolved", "c upstream-paused office resolved"}) {
			t.Errorf("%q", got)
		}
		r.alerter.Use("relay.example.com", nil)
		r.alerter.Begin(paused("office"))
		r.want()
	})
}

func TestEachHookHasItsAgeOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", Hook{Name: "a", URL: hookURL, QueueAge: time.Hour},
			Hook{Name: "b", URL: hookURL + "2", QueueAge: 3 * time.Hour},
			Hook{Name: "c", URL: hookURL + "3", QueueAge: time.Minute, Events: []Event{LoginLocked}})
		if got := r.alerter.Thresholds(); !slices.Equal(got, []time.Duration{time.Hour, 3 * time.Hour}) {
			t.Errorf("%v", got)
		}
		aged := func(d time.Duration) Condition { return Condition{Event: QueueAge, Subject: "queue", Threshold: d} }
		r.alerter.Set(QueueAge, []Condition{aged(time.Hour)})
		r.want("a queue-age queue")
		r.alerter.Set(QueueAge, []Condition{aged(time.Hour), aged(3 * time.Hour)})
		r.want("b queue-age queue")
		r.alerter.Set(QueueAge, []Condition{aged(time.Hour)})
		r.want("b queue-age queue resolved")
	})
}

func TestALockoutEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		for range 20 {
			r.alerter.Begin(Condition{Event: LoginLocked, Subject: "login x", Until: time.Now().Add(time.Hour)})
			time.Sleep(25 * time.Minute)
		}
		r.want("a login-locked login x")
		time.Sleep(time.Hour)
		r.want("a login-locked login x resolved")
	})
}

func TestTheLogHasNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		answers := []result{{err: errors.New("down")}, {err: errors.New("no"), final: true}, {}}
		r.answer = func(context.Context, Hook, Document) result {
			next := answers[0]
			answers = answers[1:]
			return next
		}
		r.alerter.Begin(paused("office"))
		time.Sleep(time.Hour)
		r.alerter.Begin(paused("backup"))
		r.take()
		log := r.log.String()
		for _, want := range []string{"will retry", "given up", "alert sent", "hooks.example.com"} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in %s", want, log)
			}
		}
		if strings.Contains(log, "SECRET") || strings.Contains(log, "services") {
			t.Errorf("log: %s", log)
		}
	})
}

// shared is a memory of nodes that tell the same hooks: who sees what.
type shared struct {
	mu    sync.Mutex // guards what follows
	sees  map[string]map[string]time.Time
	cause error // why nobody can be asked
}

// seat is a node at it.
type seat struct {
	*shared
	node string
}

func (s seat) BeginAlert(_ context.Context, key string, since time.Time) (bool, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return false, since, s.cause
	}
	if s.sees[key] == nil {
		s.sees[key] = map[string]time.Time{}
	}
	first := len(s.sees[key]) == 0
	for _, t := range s.sees[key] {
		since = t
	}
	s.sees[key][s.node] = since
	return first, since, nil
}

func (s seat) EndAlert(_ context.Context, key string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sees[key], s.node)
	return len(s.sees[key]) == 0, s.cause
}

// Of two nodes with one hook the first tells of a condition that both see, and the last of its end, with the time of
// the first. If the other cannot be asked, each tells.
func TestNodesTellOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &shared{sees: map[string]map[string]time.Time{}}
		a, b := newRig(t, ""), newRig(t, "")
		a.alerter.o.Nodes, b.alerter.o.Nodes = seat{memory, "a"}, seat{memory, "b"}
		c := Condition{Event: UpstreamPaused, Subject: "upstream x", Over: "over"}
		told := func(r *rig) string {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			return fmt.Sprint(r.got)
		}
		a.alerter.Begin(c)
		told(a)
		began := a.got[0].Since
		time.Sleep(time.Minute)
		b.alerter.Begin(c)
		if got := told(b); got != "[]" || b.counts["upstream-paused sent"] != 0 {
			t.Errorf("the second node tells %s", got)
		}
		a.alerter.End(c.Event, c.Subject, "")
		if got := told(a); got != "[a upstream-paused upstream x]" {
			t.Errorf("the first tells %s while the second sees it still", got)
		}
		b.alerter.End(c.Event, c.Subject, "")
		if got := told(b); got != "[a upstream-paused upstream x resolved]" || !b.got[0].Since.Equal(began) {
			t.Errorf("the last tells %s, since %s, want %s", got, b.got[0].Since, began)
		}

		memory.cause = errors.New("away")
		c.Subject = "upstream y"
		for _, r := range []*rig{a, b} {
			before := told(r)
			r.alerter.Begin(c)
			if got := told(r); got == before {
				t.Error("a node tells nothing while the others cannot be asked")
			}
		}
	})
}
