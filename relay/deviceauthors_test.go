package relay

import (
	"math/rand/v2"
	"strings"
	"testing"

	"postern/mail"
	"postern/policy"
	"postern/relay/submission"
)

// brokenHeader is a generated header with the faults of old devices in it.
func brokenHeader(g authorGrammar) string {
	text := g.header()
	faults := []func(string) string{
		func(s string) string { return strings.ReplaceAll(s, "\r\n ", "\r\n") },
		func(s string) string { return strings.Replace(s, "From:", "From :", 1) },
		func(s string) string { return strings.Replace(s, "\r\nSubject", "\r\n"+g.soup(2)+"\r\nSubject", 1) },
		func(s string) string { return strings.Replace(s, "\r\n\r\n", "\r\n \r\n", 1) },
		func(s string) string { return strings.Replace(s, "Subject: x\r\n\r\n", "", 1) + g.soup(3) + "\r\n" },
		func(s string) string { return s[:len(s)-2] + "From: " + g.mailbox() + "\r\n\r\n" },
		func(s string) string { return strings.Replace(s, "From: ", "From: ceo@evil ", 1) },
		func(s string) string { return strings.Replace(s, " ", "\x07", 1) },
		func(s string) string { return s },
	}
	for range 1 + g.r.IntN(2) {
		text = faults[g.r.IntN(len(faults))](text)
	}
	return text
}

// whatLeavesOfDevice is whatLeaves at a listener for old devices.
func whatLeavesOfDevice(e *policy.Effective, text string) (header string, ok bool) {
	h, _, err := mail.ReadDeviceHeader([]byte(text))
	if err != nil {
		return "", false
	}
	checked, err := submission.CheckDeviceAuthors(e, mail.Address{Local: "alice", Domain: "example.com"}, h)
	if err != nil {
		return "", false
	}
	checked.Header.Remove("Reply-To")
	return string(checked.Header.Bytes()), true
}

// TestReadersSeeNobodyElseOfDevices: however much of a header is mended, readers of other make see nobody in what
// leaves whom the device may not be.
func TestReadersSeeNobodyElseOfDevices(t *testing.T) {
	t.Parallel()
	const generated, least = 4000, 1000
	e := readersPolicy(t, policy.Refuse)
	g := authorGrammar{rand.New(rand.NewPCG(5, 6))}
	var before, headers []string
	for range generated {
		text := brokenHeader(g)
		leaves, ok := whatLeavesOfDevice(&e, text)
		if !ok {
			continue
		}
		before, headers = append(before, text), append(headers, leaves)
		if again, ok := whatLeaves(&e, leaves); !ok || again != leaves { // the strict listener judges it the same
			t.Errorf("%q leaves as %q, which is not what was judged: %q", text, leaves, again)
		}
	}
	if len(headers) < least {
		t.Fatalf("only %d of %d headers are left to judge", len(headers), generated)
	}
	judgeSeen(t, &e, before, headers)
}

// TestDeviceAuthorIsRefusedInFull: what names a third person in full is no fault of an old device.
func TestDeviceAuthorIsRefusedInFull(t *testing.T) {
	e := readersPolicy(t, policy.Refuse)
	for _, header := range []string{
		"From: ceo@evil.example\r\n\r\n", "From: Boss <ceo@evil.example>\r\n\r\n",
		"From: alice@example.com, ceo@evil.example\r\n\r\n",
		"From: ceo@evil.example\r\nFrom: cfo@evil.example\r\n\r\n",
		"Resent-From: ceo@evil.example\r\nFrom: alice@example.com\r\n\r\n",
	} {
		if leaves, ok := whatLeavesOfDevice(&e, header); ok {
			t.Errorf("%q leaves as %q", header, leaves)
		}
	}
}
