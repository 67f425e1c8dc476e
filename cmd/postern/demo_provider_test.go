package main

import (
	"strings"
	"testing"

	"postern/internal/testkit"
)

func TestDemoOfAProvider(t *testing.T) {
	out := testkit.Run(t, "", "demo", "--provider", "microsoft365", "--once")
	if !out.OK {
		t.Fatalf("demo --provider microsoft365 --once:\n%s", out.Text)
	}
	for _, want := range []string{
		"535 5.7.139", "250 2.0.0 taken by microsoft365", "with XOAUTH2 as anna@example.com",
		"asked for one token and logged in once", "Done: ",
	} {
		if !strings.Contains(out.Text, want) {
			t.Errorf("it does not say %q:\n%s", want, out.Text)
		}
	}
	if out := testkit.Run(t, "", "demo", "--provider", "nobody"); out.OK ||
		!strings.Contains(out.Text, "microsoft365 only") {
		t.Errorf("demo --provider nobody:\n%s", out.Text)
	}
}
