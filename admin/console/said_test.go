package console

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/operate"
	"postern/relay/upstream/profile"

	"github.com/pelletier/go-toml/v2"
)

// saidPairs are all entries of the catalogue.
func saidPairs(t *testing.T) (all [][]string) {
	names, err := filepath.Glob("said/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pairsOf(string(data))...)
	}
	return all
}

// TestSayings: each sentence has German with the same holes, is recognised as itself, and keeps what varies.
func TestSayings(t *testing.T) {
	seen := map[string]bool{}
	for _, pair := range saidPairs(t) {
		if len(pair) != 2 {
			t.Errorf("%q: not two lines", pair)
			continue
		}
		en, de := hole.FindAllString(pair[0], -1), hole.FindAllString(pair[1], -1)
		slices.Sort(en)
		slices.Sort(de)
		if !slices.Equal(slices.Compact(en), slices.Compact(de)) {
			t.Errorf("%q and %q have other holes", pair[0], pair[1])
		}
		if seen[pair[0]] {
			t.Errorf("%q stands twice", pair[0])
		}
		seen[pair[0]] = true
		fill := func(text string) string { return hole.ReplaceAllString(text, "X${1}X") }
		if isPart(pair[0]) {
			continue
		}
		if got, ok := german.say(fill(pair[0])); !ok || got != fill(pair[1]) {
			t.Errorf("%q is said as\n%q, %v, want\n%q", pair[0], got, ok, fill(pair[1]))
		}
	}
}

// TestSaying: sentences in a row, in holes, in lines; what others said stays as it is.
func TestSaying(t *testing.T) {
	data, err := os.ReadFile("testdata/said.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range pairsOf(string(data)) {
		english, want := strings.ReplaceAll(pair[0], `\n`, "\n"), strings.ReplaceAll(pair[1], `\n`, "\n")
		if got, ok := german.say(english); ok != (want != "-") || ok && got != want {
			t.Errorf("%q is said as\n%q, %v, want\n%q", english, got, ok, want)
		}
	}
}

// TestNamesKeepTheirCase: also where a sentence that begins with one stands within another.
func TestNamesKeepTheirCase(t *testing.T) {
	const text = "has sent as much as Google allows in 24 hours (500 messages, 2 000 in Workspace). " +
		"The mail waits until there is room"
	names := []string{"ärzte.example", "Ärzte.example", "anna@example.com", "Anna@example.com", "ßx", "\xff"}
	for _, name := range names {
		said, ok := german.say("What to do: " + name + " " + text)
		if !ok || !strings.HasPrefix(said, "Was zu tun ist: "+name+" ") {
			t.Errorf("%q, %v", said, ok)
		}
	}
}

// ourWords are replies that read as what Postern says itself.
var ourWords = []string{"mx7.example.net did not answer in time", "The doctor does not find it any more.",
	"451 4.4.1 mx7 did not answer in time", "550 No. The doctor does not find it any more.", "3 days", "queue",
	"550 No. It said: 3 days. Nobody can send there.", "What to do: Nobody can send there.", "no such host",
	"It is not refused any more, or nothing from this sender has been tried for a day",
}

// TestRepliesStayVerbatim: what others said is never put into German, whatever it is.
func TestRepliesStayVerbatim(t *testing.T) {
	for _, reply := range ourWords {
		for _, pair := range saidPairs(t) {
			if !strings.Contains(pair[0], "!}") {
				continue
			}
			text := hole.ReplaceAllStringFunc(pair[0], func(name string) string {
				if strings.HasSuffix(name, "!}") {
					return reply
				}
				return "office"
			})
			for _, text := range []string{text, "Upstream office: it does not let us in. " + text,
				"Upstream office: it does not let us in. SMTP AUTH is switched off for the mailbox a. " + text} {
				if said, ok := german.say(text); ok && !strings.Contains(said, reply) {
					t.Errorf("%q\nbecomes %q", text, said)
				}
				if !strings.HasSuffix(pair[0], "!}") {
					break // such a text stands at the beginning only
				}
			}
		}
	}
}

// TestRepliesAreMarked: a hole behind words that lead to what others said is not put into German.
func TestRepliesAreMarked(t *testing.T) {
	leads := regexp.MustCompile(`(?i)(It said|answer was|with one text, and .*|does not believe it|the account|` +
		`let us send as \{1=\}|refuses us, since \{3=\}|of the provider, since \{3=\}|since \{4=\}|` +
		`no more mail now by \{1\}|refused mail from \{2=\}|access token for upstream \{1=\}|` +
		`mail failed|replied|reply|answered): "?\{\w+[^!\w]`)
	for _, pair := range saidPairs(t) {
		if m := leads.FindString(pair[0]); m != "" {
			t.Errorf("%q: %q has no !", pair[0], m)
		}
	}
}

// TestSayingIsBounded: whatever outsiders write into a text, it costs little.
func TestSayingIsBounded(t *testing.T) {
	for _, one := range []string{"Nobody can send there. ", "The address The address ", "A. ", "Upstream X: ", "1 "} {
		s := &speech{sayings: german, failed: map[int]bool{}}
		s.line(strings.Repeat(one, maxSaid/len(one)), maxSentences)
		if s.tries > 2*maxSaid {
			t.Errorf("%q takes %d tries", one, s.tries)
		}
	}
	if _, ok := german.say(strings.Repeat("x", maxSaid+1)); ok {
		t.Error("a long text is read")
	}
}

func FuzzSaying(f *testing.F) {
	f.Add("Upstream office: it does not let us in. No.")
	f.Add("What to do: What to do: ")
	f.Fuzz(func(t *testing.T, text string) {
		s := &speech{sayings: german, failed: map[int]bool{}}
		if s.line(text, maxSentences); len(text) <= maxSaid && s.tries > 2*maxSaid {
			t.Errorf("%d tries", s.tries)
		}
	})
}

// notShown are sentences of these packages that no page shows, or that are of others.
var notShown = []string{
	"the client offers only", "no cipher suite in common", "no TLS version in common", "knows RSA certificates only",
	"it may not trust this certificate", "does not know the authority", `"bad certificate"`, `"unknown certificate"`,
	"a file that every user of this machine can read", "said no", // what package wire says, as doctor looks for it
	"Max open files", "nothing examines {} there are {}", "From: postmaster@{}", "Subject: Sample",
	"Signed to be verified.", "wrong password", "held message", ", logged in as {}", "(as far as is known)",
	"nothing examines {}; there are {}", "the resolver", "the resolver {}", // a name
	"find the system's resolver: {}; name one with --resolver", "{} names no resolver; name one with --resolver",
	"The {} that upstream {} is logged in with{}", // with the words of when it ends, in said/parts.txt
	"The {} that upstream {} is logged in with {}{}; without it no mail leaves there. What to do: {}.",
	"The certificate of the listeners", "The certificate that upstream {} knows us by",
	"{} {} What to do: {}", "{} What to do: {}", "and others",
	"an examination is under way: look again in a minute", // an error
	"EHLO doctor.invalid", "PROXY UNKNOWN", "DKIM key",
	// logs and metrics
	"DKIM keys", "a condition is not checked by a fault of ours",
	"alert resolved", "new mail is taken again",
	"the database of this server is away, nothing was taken; try again later", // to clients
	"no new mail is taken: clients are refused",
	"new mail is only handed off: what no upstream takes at once is refused",
	"Time from a message's arrival to its delivery to the upstream, once for each recipient.",
	"Alerts for each hook, by what became of them: sent, failed (given up).",
	"a report about undelivered mail cannot be delivered: the sender does not know",
	"DKIM keys are not looked for in DNS", "a DKIM key of the store cannot be read, and is not looked for in DNS",
}

var (
	verb     = regexp.MustCompile(`%(\[\d\])?[#0-9]*[a-z]`)
	sentence = regexp.MustCompile(`[A-Za-z]{2,}[,:]? [a-zA-Z]`)
)

// TestEverythingSaidIsKnown: whatever doctor, DNS checks, alerts, keys and advice can say has German.
func TestEverythingSaidIsKnown(t *testing.T) {
	known := map[string]bool{}
	for _, text := range notShown {
		known[text] = true
	}
	for _, pair := range saidPairs(t) {
		text := hole.ReplaceAllString(pair[0], "{}")
		known[text], known[strings.TrimPrefix(text, "{} ")] = true, true
	}
	check := func(where, text string) {
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSpace(hole.ReplaceAllString(verb.ReplaceAllString(line, "{}"), "{}"))
			line = strings.ReplaceAll(line, "%%", "%")
			if sentence.MatchString(line) && !known[line] && !neutral.MatchString(line) {
				t.Errorf("%s: no German in said/*.txt for:\n%s", where, line)
			}
		}
	}
	for _, dir := range []string{"doctor", "dnscheck", "monitor", "keyring"} {
		names, err := filepath.Glob("../../relay/" + dir + "/*.go")
		if err != nil || len(names) == 0 {
			t.Fatal(dir, err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, "_test.go") && !strings.HasSuffix(name, "doctor/codes.go") {
				textsOf(t, name, func(line int, text string) { check(fmt.Sprint(name, ":", line), text) })
			}
		}
	}
	textsOf(t, "../../operate/doctor.go", func(line int, text string) {
		check(fmt.Sprint("operate/doctor.go:", line), text)
	})
	data, err := os.ReadFile("../../relay/upstream/advice/advice.toml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Advice []struct {
			Name, Cause string
			Fix         []string
		}
	}
	if err := toml.Unmarshal(data, &file); err != nil || len(file.Advice) == 0 {
		t.Fatal(err)
	}
	for _, a := range file.Advice {
		for _, text := range append(a.Fix, a.Cause) {
			check("advice "+a.Name, text)
		}
	}
}

// textsOf finds the texts of a file: constants, joined by + with {} for what is not constant.
func textsOf(t *testing.T, name string, found func(line int, text string)) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var visit func(ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec, *ast.Field:
			return false
		case *ast.BasicLit, *ast.BinaryExpr:
			if text, ok := textOf(n.(ast.Expr)); ok {
				found(files.Position(n.Pos()).Line, text)
				ast.Inspect(n, func(inner ast.Node) bool { // texts among the arguments of calls in it
					if call, ok := inner.(*ast.CallExpr); ok {
						for _, arg := range call.Args {
							ast.Inspect(arg, visit)
						}
						return false
					}
					return true
				})
				return false
			}
		}
		return true
	}
	ast.Inspect(file, visit)
}

func textOf(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		a, isA := textOf(e.X)
		b, isB := textOf(e.Y)
		if e.Op != token.ADD || !isA && !isB {
			return "", false
		}
		if !isA {
			a = "{}"
		}
		if !isB {
			b = "{}"
		}
		return a + b, true
	}
	return "", false
}

// TestHistorySaid: what an event says beside a reply is German as far as it is ours; from the first words on that
// are not, all stay.
func TestHistorySaid(t *testing.T) {
	for text, want := range map[string][2]string{
		"queued":                                    {"In der Warteschlange", ""},
		"queued; line 3 was odd":                    {"In der Warteschlange; ", "line 3 was odd"},
		"No. Never; queued":                         {"", "No. Never; queued"},
		"line 3 was odd; queued":                    {"", "line 3 was odd; queued"},
		"failure report 4711 queued":                {"Fehlerbericht 4711 in der Warteschlange", ""},
		"the provider knows the message as <abc@x>": {"Beim Anbieter heißt die Nachricht <abc@x>", ""},
		"this concerns the sender's address only: mail of other senders goes on; the sender and From must be a@b, an " +
			"alias of it, or an address that it may send as": {"Das betrifft nur die Adresse des Absenders: Post " +
			"anderer Absender geht weiter; der Absender und From müssen a@b sein, ein Alias davon oder eine Adresse, " +
			"als die es senden darf", ""},
		"account added by petra in the console": {"Zugang angelegt von petra in der Konsole", ""},
	} {
		var got [2]string
		for _, s := range wordsFor("de").history(text) {
			if s.Lang == "" {
				got[0] = s.Text
			} else {
				got[1] = s.Text
			}
		}
		if got != want {
			t.Errorf("%q is said as %q", text, got)
		}
	}
	if got := wordsFor("en").history("queued"); len(got) != 1 || got[0].Text != "queued" {
		t.Error(got)
	}
}

// TestWarningsOfTheConfigurationAreSaid: whatever relay/config and the profiles warn of has German.
func TestWarningsOfTheConfigurationAreSaid(t *testing.T) {
	known := map[string]bool{}
	for _, pair := range saidPairs(t) {
		known[strings.ReplaceAll(hole.ReplaceAllString(pair[0], "{}"), `"{}"`, "{}")] = true
	}
	for _, made := range []string{"{} {}", "has no effect without dns-01 in challenges"} { // of parts that are known
		known[made] = true
	}
	n := 0
	check := func(where, text string) {
		text = verb.ReplaceAllString(text, "{}")
		n++
		said := false
		for _, begins := range []string{"{}", "servers {}", "this machine's name {}", "stands in"} {
			said = said || known[begins+strings.TrimPrefix(strings.TrimPrefix(text, "{}"), "{}")] ||
				known[strings.Replace(begins+strings.TrimPrefix(text, "{}"), "){} run", "), run", 1)]
		}
		if !said && !known[text] && !known["servers "+strings.TrimPrefix(text, "{}")] {
			t.Errorf("%s: no German in said/*.txt for:\n%s", where, text)
		}
	}
	names, err := filepath.Glob("../../relay/config/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			warningsOf(t, name, func(line int, text string) { check(fmt.Sprint(name, ":", line), text) })
		}
	}
	for _, name := range profile.Names() {
		if p, ok := profile.Get(name); ok && p.PasswordWarning != "" {
			check("profile "+name, p.PasswordWarning)
		}
	}
	if n < 30 {
		t.Errorf("%d warnings only", n)
	}
}

// warningsOf finds the texts of calls of warn in a file.
func warningsOf(t *testing.T, name string, found func(line int, text string)) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		if method, ok := call.Fun.(*ast.SelectorExpr); !ok || method.Sel.Name != "warn" {
			return true
		}
		if text, ok := textOf(call.Args[1]); ok && text != "%s" {
			found(files.Position(n.Pos()).Line, text)
		}
		return true
	})
}

// TestRefusalsOfFormsAreSaid: what forms are refused for has German, from the words of those who refuse.
func TestRefusalsOfFormsAreSaid(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("n", 2001)
	for _, n := range []operate.NewAccount{
		{}, {Login: strings.Repeat("a", 257)}, {Login: "a\nb"}, {Login: "a b"}, {Login: "<b>"}, {Login: "@a"},
		{Login: "-a"}, {Login: "a", Senders: []string{"<x>@b.example"}}, {Login: "a", Senders: []string{"a"}},
		{Login: "a", Senders: []string{"a@*"}}, {Login: "a", Senders: []string{"*@*.[192.0.2.1]"}},
		{Login: "a", Senders: []string{"<*>@b.example"}}, {Login: "a", Senders: []string{"{x}@b.example"}},
		{Login: "a", Senders: []string{"@b.example"}}, {Login: "a", Senders: []string{"@"}},
		{Login: "a", Senders: []string{"!a@b.example"}}, {Login: "a", Senders: []string{"*"}},
		{Login: "a", Networks: []string{"x"}}, {Login: "a", Networks: []string{"10.0.0.1/8"}},
		{Login: "a", Networks: []string{"::ffff:0:0/90"}}, {Login: "a", Groups: []string{"a b"}},
		{Login: "a", Note: long},
		{Login: "<b>", Groups: []string{"a b"}, Note: long},
	} {
		saidWhole(t, n.Check())
	}
	for _, table := range []string{"", "a,b\n1,2\n", "login,login\nq,q\n", "login,notes,x\nq,,\n",
		"login,kind\na b,robot\n",
		"login,senders,networks,groups\nq,<b>@,zz,a b\n", "login,note\nq," + long + "\n", "login,password\nq,\x01\n"} {
		_, err := r.operations.Accounts.Import(t.Context(), operate.Actor{Channel: operate.CommandLine}, []byte(table),
			operate.Import{})
		wrong, is := errors.AsType[*operate.TableError](err)
		if !is {
			t.Fatalf("%q: %v", table, err)
		}
		for _, line := range wrong.Lines {
			_, what, _ := strings.Cut(line, ": ")
			saidWhole(t, errors.New(what))
		}
	}
	_, err := operate.ParseDomain("a b")
	saidWhole(t, err)
}

// saidWhole checks that an error has German without words of English in it.
func saidWhole(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("not refused")
		return
	}
	said := wordsFor("de").said(err.Error())
	if said.Lang != "" || leftEnglish.MatchString(said.Text) {
		t.Errorf("%q is said as %q (%s)", err, said.Text, said.Lang)
	}
}

var leftEnglish = regexp.MustCompile(`\b(is|has|the|cannot|of|write|that|be)\b`)
