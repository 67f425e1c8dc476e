// Package policytest holds the contract of policy.LimitStore as a test, and an in-memory store that passes it.
package policytest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/policy"
)

// Memory is a policy.LimitStore in memory. Err, when set, is what every call returns.
type Memory struct {
	mu     sync.Mutex
	err    error
	states map[[2]string]policy.State
	known  map[[2]string]time.Time
	calls  map[string]int
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{states: map[[2]string]policy.State{}, known: map[[2]string]time.Time{}, calls: map[string]int{}}
}

// Fail makes every call return err; nil ends it.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// Calls returns how often a method was called.
func (m *Memory) Calls(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}

func (m *Memory) enter(ctx context.Context, method string) error {
	m.mu.Lock()
	m.calls[method]++
	if m.err != nil {
		return m.err
	}
	return ctx.Err()
}

// LoadLimits implements policy.LimitStore.
func (m *Memory) LoadLimits(ctx context.Context, now time.Time) (states []policy.State, err error) {
	err = m.enter(ctx, "LoadLimits")
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, s := range m.states {
		if s.Full.After(now) {
			states = append(states, s)
		}
	}
	return states, nil
}

// SaveLimits implements policy.LimitStore.
func (m *Memory) SaveLimits(ctx context.Context, now time.Time, states []policy.State) error {
	err := m.enter(ctx, "SaveLimits")
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for _, s := range states {
		m.states[[2]string{s.Login, s.Limit}] = s
	}
	for k, s := range m.states {
		if !s.Full.After(now) {
			delete(m.states, k)
		}
	}
	return nil
}

// NewRecipients implements policy.LimitStore.
func (m *Memory) NewRecipients(ctx context.Context, login string, addrs []string) (n int, err error) {
	err = m.enter(ctx, "NewRecipients")
	defer m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for _, a := range addrs {
		if _, ok := m.known[[2]string{login, a}]; !ok {
			n++
		}
	}
	return n, nil
}

// RememberRecipients implements policy.LimitStore.
func (m *Memory) RememberRecipients(ctx context.Context, login string, addrs []string, now time.Time) error {
	err := m.enter(ctx, "RememberRecipients")
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		m.known[[2]string{login, a}] = now
	}
	return nil
}

// ForgetRecipients implements policy.LimitStore.
func (m *Memory) ForgetRecipients(ctx context.Context, before time.Time) (n int64, err error) {
	err = m.enter(ctx, "ForgetRecipients")
	defer m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for k, at := range m.known {
		if at.Before(before) {
			delete(m.known, k)
			n++
		}
	}
	return n, nil
}

var now = time.Date(2026, 11, 22, 8, 30, 0, 123e6, time.UTC)

func state(login, limit string, tokens float64, full time.Duration) policy.State {
	return policy.State{Login: login, Limit: limit, Tokens: tokens, At: now, Full: now.Add(full)}
}

// RunLimitStore tests a LimitStore. open returns an empty one.
func RunLimitStore(t *testing.T, open func(*testing.T) policy.LimitStore) {
	testLimits(t, open)
	testRecipients(t, open)
	t.Run("a cancelled context changes nothing", func(t *testing.T) {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.SaveLimits(ctx, now, []policy.State{state("anna", "2GB/day", 1, time.Hour)}); err == nil {
			t.Error("SaveLimits with a cancelled context: no error")
		}
		if err := s.RememberRecipients(ctx, "anna", []string{"one@example.com"}, now); err == nil {
			t.Error("RememberRecipients with a cancelled context: no error")
		}
		wantStates(t, load(t, s, now))
		wantNew(t, s, "anna", 1, "one@example.com")
	})
}

func testLimits(t *testing.T, open func(*testing.T) policy.LimitStore) {
	t.Run("states come back", func(t *testing.T) {
		s := open(t)
		if got := load(t, s, now); len(got) != 0 {
			t.Fatalf("an empty store has %v", got)
		}
		a, b := state("anna", "60 messages/minute", 59.25, time.Second), state("anna", "2GB/day", 1.5e9, time.Hour)
		c := state("bob", "60 messages/minute", 0, time.Minute)
		save(t, s, now, a, b)
		save(t, s, now, c)
		save(t, s, now)
		wantStates(t, load(t, s, now), a, b, c)
	})
	t.Run("the last one counts", func(t *testing.T) {
		s := open(t)
		save(t, s, now, state("anna", "60 messages/minute", 10, time.Minute))
		last := state("anna", "60 messages/minute", 5, 2*time.Minute)
		save(t, s, now, last)
		wantStates(t, load(t, s, now), last)
	})
	t.Run("full ones are dropped", func(t *testing.T) {
		s := open(t)
		short, long := state("anna", "60 messages/minute", 59, time.Second), state("anna", "2GB/day", 1, time.Hour)
		save(t, s, now, short, long)
		later := now.Add(time.Minute)
		wantStates(t, load(t, s, later), long)
		save(t, s, later)
		wantStates(t, load(t, s, now), long) // the other is gone
		full := state("anna", "2GB/day", 2e9, 0)
		save(t, s, now, full)
		wantStates(t, load(t, s, now))
	})
	t.Run("many at once", func(t *testing.T) {
		s := open(t)
		var many []policy.State
		for i := range 2500 {
			many = append(many, state(fmt.Sprintf("user%04d", i), "60 messages/minute", float64(i)/100, time.Minute))
		}
		save(t, s, now, many...)
		wantStates(t, load(t, s, now), many...)
	})
}

func testRecipients(t *testing.T, open func(*testing.T) policy.LimitStore) {
	t.Run("recipients", func(t *testing.T) {
		s := open(t)
		one, two, three := "one@example.com", "two@example.com", "тpи@xn--e1afmkfd.example"
		wantNew(t, s, "anna", 3, one, two, three)
		wantNew(t, s, "anna", 3, one, two, three) // counting remembers nothing
		remember(t, s, now, "anna", one, three)
		wantNew(t, s, "anna", 1, one, two, three)
		wantNew(t, s, "bob", 3, one, two, three) // of another login
		wantNew(t, s, "anna", 0)
		remember(t, s, now.Add(time.Hour), "anna", one) // used again
		if n, err := s.ForgetRecipients(t.Context(), now.Add(time.Minute)); n != 1 || err != nil {
			t.Errorf("ForgetRecipients = %d, %v; want 1", n, err)
		}
		wantNew(t, s, "anna", 0, one)
		wantNew(t, s, "anna", 1, three)
	})
	t.Run("many recipients", func(t *testing.T) {
		s := open(t)
		var many []string
		for i := range 2500 {
			many = append(many, fmt.Sprintf("user%d@example.com", i))
		}
		remember(t, s, now, "anna", many[:2000]...)
		wantNew(t, s, "anna", 500, many...)
	})
}

func save(t *testing.T, s policy.LimitStore, now time.Time, states ...policy.State) {
	t.Helper()
	if err := s.SaveLimits(t.Context(), now, states); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s policy.LimitStore, now time.Time) []policy.State {
	t.Helper()
	states, err := s.LoadLimits(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return states
}

func remember(t *testing.T, s policy.LimitStore, now time.Time, login string, addrs ...string) {
	t.Helper()
	if err := s.RememberRecipients(t.Context(), login, addrs, now); err != nil {
		t.Fatal(err)
	}
}

func wantNew(t *testing.T, s policy.LimitStore, login string, want int, addrs ...string) {
	t.Helper()
	if n, err := s.NewRecipients(t.Context(), login, addrs); n != want || err != nil {
		t.Errorf("NewRecipients(%s, %d addresses) = %d, %v; want %d", login, len(addrs), n, err, want)
	}
}

func wantStates(t *testing.T, got []policy.State, want ...policy.State) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d states, want %d", len(got), len(want))
	}
	order := func(a, b policy.State) int {
		return slices.Compare([]string{a.Login, a.Limit}, []string{b.Login, b.Limit})
	}
	got, want = slices.SortedFunc(slices.Values(got), order), slices.SortedFunc(slices.Values(want), order)
	for i, g := range got {
		w := want[i]
		same := g.Login == w.Login && g.Limit == w.Limit && math.Abs(g.Tokens-w.Tokens) < 1e-6
		if !same || g.At.Sub(w.At).Abs() > time.Millisecond || g.Full.Sub(w.Full).Abs() > time.Millisecond {
			t.Errorf("state = %+v, want %+v", g, w)
		}
	}
}
