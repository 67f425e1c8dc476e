package console

import (
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template/parse"
)

func init() {
	unknownKey = func(k key) { panic(fmt.Sprintf("%q is not in the catalogue", string(k))) }
}

// entries returns the catalogue.
func entries(t *testing.T) (all []entry) {
	names, _ := fs.Glob(wordFiles, "words/*.txt")
	for _, name := range names {
		data, err := wordFiles.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		some, err := parseWords(string(data))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

var verbs = regexp.MustCompile(`%(\[\d\])?[a-z]`)

// TestCatalogue: every text stands in both languages, with the same verbs.
func TestCatalogue(t *testing.T) {
	for _, e := range entries(t) {
		for i := range e.english {
			en, de := verbs.FindAllString(e.english[i], -1), verbs.FindAllString(e.german[i], -1)
			slices.Sort(en)
			slices.Sort(de)
			if e.german[i] == "" || !slices.Equal(en, de) {
				t.Errorf("%q and %q have other verbs", e.english[i], e.german[i])
			}
		}
	}
	for _, bad := range []string{"one line", "a\nb\nc", "a | b\nc", "a | b | c\na | b | c"} {
		if _, err := parseWords(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestPlurals: one, other, and numbers as each language writes them.
func TestPlurals(t *testing.T) {
	for accept, want := range map[string][]string{"en": {"1 day", "2 days", "12,345 days"},
		"de": {"1 Tag", "2 Tg.", "12.345 Tg."}} {
		for i, n := range []int{1, 2, 12345} {
			if got := wordsFor(accept).t("%d days", n); got != want[i] {
				t.Errorf("%s: %q, want %q", accept, got, want[i])
			}
		}
	}
}

// TestKeysAreKnown: what templates and code name stands in the catalogue, and all of the catalogue is named.
func TestKeysAreKnown(t *testing.T) {
	used := map[string]bool{}
	for name, s := range *loadSheets(&console{pages: registry(), assets: loadAssets()}, registry())["en"] {
		for _, tmpl := range s.Templates() {
			if tmpl.Tree != nil {
				keysOfNode(t, name, tmpl.Tree.Root, used)
			}
		}
	}
	files, _ := fs.Glob(os.DirFS("."), "*.go")
	for _, room := range []string{"door/*.go", "selfservice/*.go"} {
		others, _ := fs.Glob(os.DirFS(".."), room)
		for _, name := range others {
			files = append(files, "../"+name)
		}
	}
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			stringsOf(t, name, used)
		}
	}
	for k := range knownKeys {
		if !used[string(k)] {
			t.Errorf("%q is in the catalogue and used nowhere", k)
		}
	}
}

// keysOfNode finds the calls of t in a template: each with a constant that is known.
func keysOfNode(t *testing.T, name string, node parse.Node, used map[string]bool) {
	walk(node, func(c *parse.CommandNode) {
		if id, ok := c.Args[0].(*parse.IdentifierNode); !ok || id.Ident != "t" {
			return
		}
		text, ok := c.Args[1].(*parse.StringNode)
		if !ok {
			t.Errorf("%s: the key of %s is not constant", name, c)
			return
		}
		used[text.Text] = true
		if !knownKeys[key(text.Text)] {
			t.Errorf("%s: %q is not in the catalogue", name, text.Text)
		}
	})
}

// walk visits the commands under a node.
func walk(node parse.Node, visit func(*parse.CommandNode)) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, each := range n.Nodes {
				walk(each, visit)
			}
		}
	case *parse.IfNode:
		walkBranch(&n.BranchNode, visit)
	case *parse.RangeNode:
		walkBranch(&n.BranchNode, visit)
	case *parse.WithNode:
		walkBranch(&n.BranchNode, visit)
	case *parse.ActionNode:
		walk(n.Pipe, visit)
	case *parse.TemplateNode:
		walk(n.Pipe, visit)
	case *parse.PipeNode:
		if n != nil {
			for _, c := range n.Cmds {
				walk(c, visit)
			}
		}
	case *parse.CommandNode:
		visit(n)
		for _, arg := range n.Args {
			walk(arg, visit)
		}
	}
}

func walkBranch(b *parse.BranchNode, visit func(*parse.CommandNode)) {
	walk(b.Pipe, visit)
	walk(b.List, visit)
	walk(b.ElseList, visit)
}

// keyCalls are the methods whose first argument is a key.
var keyCalls = map[string]bool{"t": true, "leave": true, "T": true, "Leave": true}

// stringsOf finds the constants of a file: those that are given to keyCalls must be known.
func stringsOf(t *testing.T, name string, used map[string]bool) {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var constant func(e ast.Expr) (string, bool)
	constant = func(e ast.Expr) (string, bool) {
		if sum, ok := e.(*ast.BinaryExpr); ok && sum.Op == token.ADD {
			a, first := constant(sum.X)
			b, second := constant(sum.Y)
			return a + b, first && second
		}
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(lit.Value)
		return text, err == nil
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if text, ok := constant(e); ok {
				used[text] = true
			}
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok && keyCalls[sel.Sel.Name] && len(call.Args) > 0 {
			if text, ok := constant(call.Args[0]); ok && !knownKeys[key(text)] {
				t.Errorf("%s: %q is not in the catalogue", name, text)
			}
		}
		return true
	})
}

// TestOneWordForEachThing: words that people did not understand, or that named what has another name already, do not
// come back; the head of words/frame.txt says what to write.
func TestOneWordForEachThing(t *testing.T) {
	banned := regexp.MustCompile(`\b(Upstreams?|Listeners?|Identität(en)?|Policy|Hooks?|Verfasser|Clients?|` +
		`Kopffeld(er)?|Audits?|` +
		`[Zz]ugestellt|Zustellung(en)?|zurückgehalten|E-Mails?)\b|\{login\}|outcome-|dns-nxdomain`)
	theirs := regexp.MustCompile(`Client-(ID|Secret)|Client credentials|Email Security Policy|` + // names of others
		"`[^`]*`" + `|\[\[?[a-z.]+\]\]?|[A-Z][\w ]+( > [\w ,&+-]+)+` +
		`|Access [Pp]olicy|Email &|E-Mail-Konto hinzufügen|Server für ausgehende E-Mails`)
	english := regexp.MustCompile(`(?i)\b(upstreams?|hooks?)\b`)
	for dir, files := range map[string]embed.FS{"words": wordFiles, "said": saidFiles} {
		names, err := fs.Glob(files, dir+"/*.txt")
		if err != nil || len(names) == 0 {
			t.Fatal(dir, err)
		}
		for _, name := range names {
			data, err := files.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range pairsOf(strings.ReplaceAll(string(data), "\n#", "\n# ")) {
				if len(pair) != 2 {
					continue // the other tests say so
				}
				if m := banned.FindString(theirs.ReplaceAllString(pair[1], "")); m != "" {
					t.Errorf("%s: %q in %q", name, m, pair[1])
				}
				if m := english.FindString(theirs.ReplaceAllString(pair[0], "")); m != "" && dir == "words" {
					t.Errorf("%s: %q in %q", name, m, pair[0])
				}
			}
		}
	}
}
