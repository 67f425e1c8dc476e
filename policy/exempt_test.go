package policy_test

import (
	"slices"
	"testing"

	"postern/policy"
)

// TestUnlimitedFirst: a limit is not said to bind where a rule before it says that there is none.
func TestUnlimitedFirst(t *testing.T) {
	l := limit(t, "1 message/minute")
	p, err := policy.New([]policy.Rule{{Name: "inside", Listeners: []string{"inside"}, Limits: []policy.Limit{}},
		{Limits: []policy.Limit{l}},
		{Senders: []string{"{login}"}, UnlistedSender: policy.Refuse, Recipients: []string{"*"},
			OverLimit: policy.Defer, MaxHeld: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if all := p.Bindings("anna", nil); len(all) != 1 || !slices.Equal(all[0].Except, []string{"inside"}) {
		t.Errorf("said to count everywhere, and it does not on inside: %+v", all)
	}
}
