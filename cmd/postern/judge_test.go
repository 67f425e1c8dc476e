package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runJudge(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"upstream", "judge"}, args...))
	err := root.Execute()
	return out.String(), err
}

func TestJudgeSaysHowAReplyIsRead(t *testing.T) {
	t.Chdir(t.TempDir()) // without a relay.toml
	t.Setenv("POSTERN_CONFIG", "")
	for _, c := range []struct {
		stdin string
		args  []string
		want  []string
	}{
		{"", []string{"550 5.7.1 [STF] Sending too fast"},
			[]string{"back-pressure", "too-fast, which holds for every provider", "--stage was not given"}},
		{"", []string{"550", "Relay", "quota", "exceeded,", "will", "reset", "in", "2.5", "hours"},
			[]string{"over-quota", "2h30m at least"}},
		{"", []string{"--provider", "gmail", "--stage", "MAIL", "550 5.4.5 Daily user sending limit exceeded"},
			[]string{"daily-quota, of the profile gmail", "so much in 24h is used up", "mail, the reply to MAIL FROM"}},
		{"", []string{`552-5.2.2 The account that you tried to reach\r\n552 5.2.2 is over quota`, "--stage", "rcpt"},
			[]string{"the recipient's (recipient-fault)"}},
		{"host mx.example.net said: 550-5.7.26 Unauthenticated email\r\n550-5.7.26 from example.com\r\n", []string{"-"},
			[]string{"550 5.7.26 Unauthenticated email from example.com", "the message's (message-fault)",
				"at greeting, ehlo, tls, auth: our account's"}},
		{"550 5.7.1 You are not allowed\n to send as boss@example.com", []string{"-"},
			[]string{"the sender's", "mail of others goes on"}},
		{"", []string{"571 xyzzy"}, []string{"none knows this reply", "[[upstream.rule]]", `example = "571 xyzzy"`}},
		{"", []string{"554 5.7.1 Relay access denied"}, []string{"relay-denied", "account-fault",
			"username and password"}},
	} {
		out, err := runJudge(t, c.stdin, c.args...)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%q: no %q in\n%s", c.args, want, out)
			}
		}
	}
}

func TestJudgeByAnUpstream(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "relay.toml")
	const text = `hostname = "relay.example.com"
[[upstream]]
name = "office"
provider = "fastmail"
username = "relay@example.com"
password = "env:NOT_SET_HERE"
[[upstream.rule]]
name = "ours"
stages = ["message"]
text = "xyzzy"
class = "deferral"
example = "571 xyzzy"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runJudge(t, "", "--config", file, "--upstream", "office", "--json", "571 5.7.1 xyzzy")
	if err != nil {
		t.Fatal(err)
	}
	var j struct {
		Reply struct {
			Code           int
			Enhanced, Text string
		}
		Stage, Provider, Upstream, Class, Rule, From string
		Other                                        []struct{ Stages []string }
	}
	if err := json.Unmarshal([]byte(out), &j); err != nil || strings.Contains(out, `"Code"`) {
		t.Errorf("%v\n%s", err, out)
	}
	if j.Rule != "ours" || j.From != "relay.toml" || j.Class != "deferral" || j.Stage != "dot" || j.Reply.Code != 571 ||
		len(j.Other) != 1 {
		t.Errorf("%+v", j)
	}
	if out, err = runJudge(t, "", "--config", file, "--upstream", "office",
		"551 5.7.1 Not authorised to send from this header address"); err != nil ||
		!strings.Contains(out, "sender-not-allowed, of the profile fastmail") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err = runJudge(t, "", "--config", file, "--upstream", "home", "571 xyzzy"); !isUsage(err) {
		t.Errorf("an upstream that is not there: %v", err)
	}
}

func isUsage(err error) bool {
	wrong, ok := errors.AsType[*usageError](err)
	return ok && wrong != nil
}

func TestJudgeUsedWrongly(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"has no reply code":          {"Sending too fast"},
		"is no refusal":              {"250 OK"},
		"is none of greeting":        {"550 no", "--stage", "dott"},
		"there is no profile":        {"550 no", "--provider", "nobody"},
		"answers by HTTP":            {"550 no", "--provider", "microsoft-graph"},
		"requires at least 1 arg":    {},
		"none of the others can be;": {"550 no", "--provider", "gmail", "--upstream", "office"},
	} {
		if _, err := runJudge(t, "", args...); err == nil || !strings.Contains(err.Error(), want) ||
			want != "none of the others can be;" && !isUsage(err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
