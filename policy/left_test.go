package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/mail"
	"postern/policy"
	"postern/policy/policytest"
)

func limit(t *testing.T, s string) policy.Limit {
	t.Helper()
	l, err := policy.ParseLimit(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestBindings: what binds a login is what Policy.For finds for it, wherever it comes from.
func TestBindings(t *testing.T) {
	local := netip.MustParsePrefix("10.0.0.0/8")
	a, b, c := limit(t, "1 message/minute"), limit(t, "2 messages/day"), limit(t, "3MB/hour")
	everything := policy.Rule{Senders: []string{"{login}"}, UnlistedSender: policy.Refuse, Recipients: []string{"*"},
		OverLimit: policy.Defer, MaxHeld: 1}
	p, err := policy.New([]policy.Rule{
		{Logins: []string{"free"}, Limits: []policy.Limit{}},
		{Groups: []string{"devices"}, Networks: []netip.Prefix{local}, Limits: []policy.Limit{a}},
		{Listeners: []string{"smtps"}, Limits: []policy.Limit{b, a}},
		{Logins: []string{"scan*"}, Limits: []policy.Limit{c}},
		{Limits: []policy.Limit{b}}, everything,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		login, group, want string
	}{
		{"FREE", "", ""},
		{"ben", "", "policy 3 2 messages/day [smtps], policy 3 1 message/minute [smtps], policy 5 2 messages/day, "},
		{"Scan-1", "Devices", "policy 2 1 message/minute 10.0.0.0/8, policy 3 2 messages/day [smtps], " +
			"policy 3 1 message/minute [smtps], policy 4 3MB/hour, "},
	} {
		got := ""
		for _, b := range p.Bindings(x.login, []string{x.group}) {
			got += b.Rule + " " + b.Limit.String()
			if len(b.Listeners) > 0 {
				got += " " + fmt.Sprint(b.Listeners)
			}
			if len(b.Networks) > 0 {
				got += " " + b.Networks[0].String()
			}
			got += ", "
		}
		if got != x.want {
			t.Errorf("%s: %s\nwant %s", x.login, got, x.want)
		}
		for _, at := range []policy.Subject{{Listener: "smtps"}, {Listener: "x", Client: local.Addr()},
			{Listener: "x"}} {
			at.Login, at.Groups = x.login, []string{x.group}
			for _, l := range p.For(at).Limits {
				same := func(b policy.Binding) bool { return b.Limit == l }
				if !slices.ContainsFunc(p.Bindings(x.login, at.Groups), same) {
					t.Errorf("%s at %+v has %s, which is not listed", x.login, at, l)
				}
			}
		}
	}
}

// TestLeft: what is said to be left passes, and one more does not; by memory and by the store it is the same.
func TestLeft(t *testing.T) {
	start := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	store := policytest.NewMemory()
	l, err := policy.NewLimiter(t.Context(), store, start, nil)
	if err != nil {
		t.Fatal(err)
	}
	ten := limit(t, "10 messages/hour")
	limits := []policy.Limit{ten}
	got := ten.LeftOf(policy.State{}, start)
	if states := l.States(start, "ben", limits); len(states) != 0 || got != (policy.Left{Left: 10}) {
		t.Errorf("unused: %+v", got)
	}
	take := func(now time.Time) bool {
		v, err := l.Take(t.Context(), now, "ben", limits, policy.Usage{Messages: 1, Recipients: []mail.Address{}})
		if err != nil {
			t.Fatal(err)
		}
		return v.OK
	}
	for range 7 {
		take(start)
	}
	for _, x := range []struct {
		after time.Duration
		left  policy.Left
	}{
		{0, policy.Left{7, 3, time.Time{}, start.Add(42 * time.Minute)}},
		{5 * time.Minute, policy.Left{7, 3, time.Time{}, start.Add(42 * time.Minute)}},
		{6 * time.Minute, policy.Left{6, 4, time.Time{}, start.Add(42 * time.Minute)}},
		{42 * time.Minute, policy.Left{Left: 10}},
	} {
		now := start.Add(x.after)
		if err := l.Save(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		stored, err := store.LoadLimits(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		for _, states := range [][]policy.State{l.States(now, "ben", limits), stored} {
			s := policy.State{}
			if len(states) > 0 {
				s = states[0]
			}
			got := ten.LeftOf(s, now)
			got.Full = got.Full.Round(time.Second)
			if got != x.left {
				t.Errorf("after %s: %+v, want %+v", x.after, got, x.left)
			}
		}
	}
	now := start.Add(time.Hour)
	for range 10 {
		take(now)
	}
	got = ten.LeftOf(l.States(now, "ben", limits)[0], now)
	if got.Left != 0 || got.Next.Round(time.Second) != now.Add(6*time.Minute) || take(got.Next.Add(-time.Second)) ||
		!take(got.Next.Add(time.Second)) {
		t.Errorf("used up: %+v", got)
	}
}
