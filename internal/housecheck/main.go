// Command housecheck measures the tracked sources and fails if one is over its budget: the size of files, functions and
// types, the width of lines, copied code, tests that sleep, and how often a reader who follows a message changes files.
// Run it at the root of the repository. Its arguments are path prefixes; it lists all findings under them, even those
// within the budget.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxColumns  = 120 // a tab counts as tabWidth
	tabWidth    = 4
	fileLines   = 380 // 95 of 100 product files have at most this many lines
	funcLines   = 30  // 95 of 100 product functions do
	longestFunc = 70  // and no product function has more
	maxMethods  = 20
	copyLines   = 6  // significant lines in a row that make a copy
	copyPlaces  = 8  // what stands in more places than this is an idiom, not a copy
	listed      = 40 // of a rule that exceeds its budget, unless paths are named
)

// A rule is what a finding breaks.
type rule string

const (
	longFiles   rule = "files above the 95th percentile's limit"
	longFuncs   rule = "functions above the 95th percentile's limit"
	longestFns  rule = "functions above the maximum"
	wideLines   rule = "wide lines"
	wideInTests rule = "wide lines in tests"
	bigTypes    rule = "types with too many methods"
	sleeps      rule = "test files that sleep outside synctest"
	copies      rule = "copies"
)

// budgets says how many findings of each rule are accepted. They may only fall.
var budgets = []struct {
	rule rule
	max  int
}{
	{longFiles, 0}, {longFuncs, 0}, {longestFns, 0}, {wideLines, 0}, {wideInTests, 0},
	{bigTypes, 16}, {sleeps, 6}, {copies, 16},
}

// finding is a place that breaks a rule: a line, or a file, function or method with its lines.
type finding struct {
	rule        rule
	path        string
	line, lines int
	text        string
}

func main() {
	var findings []finding
	tracked, err := exec.Command("git", "ls-files", "-z").Output()
	if err == nil {
		findings, err = measure(os.DirFS("."), strings.Split(strings.TrimRight(string(tracked), "\x00"), "\x00"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "housecheck:", err)
		os.Exit(2)
	}
	held := report(findings, os.Args[1:])
	message, err := follow(".", pathStart, pathPackages...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "housecheck:", err)
		os.Exit(2)
	}
	if !reportPath(message) || !held {
		os.Exit(1)
	}
}

// report lists what exceeds its budget or stands under one of the prefixes, and says whether all budgets are held.
func report(findings []finding, prefixes []string) bool {
	ok := true
	for _, b := range budgets {
		found := slices.DeleteFunc(slices.Clone(findings), func(f finding) bool { return f.rule != b.rule })
		over := len(found) > b.max
		ok = ok && !over
		for i, f := range found {
			under := func(prefix string) bool { return strings.HasPrefix(f.path, prefix) }
			if slices.ContainsFunc(prefixes, under) || over && len(prefixes) == 0 && i < listed {
				fmt.Printf("%s:%d: %s\n", f.path, f.line, f.text)
			}
		}
		if over {
			fmt.Printf("housecheck: %d %s, the budget is %d\n", len(found), b.rule, b.max)
		} else if len(found) < b.max {
			fmt.Printf("housecheck: %d %s, please lower the budget of %d\n", len(found), b.rule, b.max)
		}
	}
	return ok
}

// house is what has been read.
type house struct {
	files, funcs []finding
	methods      map[string][]finding // by package and type
	significant  []finding            // the lines of Go files in which copies are looked for
	findings     []finding
}

// measure returns everything in the files at paths that breaks a rule.
func measure(fsys fs.FS, paths []string) ([]finding, error) {
	h := house{methods: map[string][]finding{}}
	for _, name := range paths {
		content, err := fs.ReadFile(fsys, name)
		if os.IsNotExist(err) || strings.Contains(name, "testdata/") { // deleted, not committed yet; input of tests
			continue
		}
		if err == nil {
			err = h.add(name, string(content))
		}
		if err != nil {
			return nil, err
		}
	}
	h.percentile(longFiles, h.files, fileLines)
	h.percentile(longFuncs, h.funcs, funcLines)
	for _, name := range slices.Sorted(maps.Keys(h.methods)) {
		if n, first := len(h.methods[name]), h.methods[name][0]; n > maxMethods {
			h.found(bigTypes, first.path, first.line, fmt.Sprintf("%s has %d methods, over %d", name, n, maxMethods))
		}
	}
	h.copies()
	return h.findings, nil
}

func (h *house) found(r rule, path string, line int, text string) {
	h.findings = append(h.findings, finding{rule: r, path: path, line: line, text: text})
}

func (h *house) add(name, content string) error {
	isGo, isDoc := strings.HasSuffix(name, ".go"), strings.HasSuffix(name, ".md")
	if !isGo && !isDoc && !strings.HasPrefix(content, "#!") {
		return nil
	}
	r, fenced := wideLines, false
	if strings.HasSuffix(name, "_test.go") {
		r = wideInTests
	}
	for i, l := range strings.Split(content, "\n") {
		fenced = fenced != (isDoc && strings.HasPrefix(strings.TrimSpace(l), "```"))
		unbreakable := isDoc && (fenced || strings.HasPrefix(l, "|") || strings.Contains(l, "://")) ||
			isGo && strings.Contains(l, " `toml:") // a struct tag
		width := utf8.RuneCountInString(l) + (tabWidth-1)*strings.Count(l, "\t")
		if width > maxColumns && !unbreakable {
			h.found(r, name, i+1, fmt.Sprintf("%d columns, over %d", width, maxColumns))
		}
	}
	if isGo {
		return h.addGo(name, content)
	}
	return nil
}

func (h *house) addGo(name, content string) error {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, content, 0)
	if err != nil {
		return err
	}
	test := strings.HasSuffix(name, "_test.go")
	if !test {
		h.files = append(h.files, finding{path: name, line: 1, lines: strings.Count(content, "\n"), text: "the file"})
	}
	lastImport := fset.Position(file.Name.Pos()).Line
	for _, decl := range file.Decls {
		from, to := fset.Position(decl.Pos()).Line, fset.Position(decl.End()).Line
		switch d := decl.(type) {
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				lastImport = to
			}
		case *ast.FuncDecl:
			if !test {
				h.addFunc(d, finding{path: name, line: from, lines: to - from + 1, text: d.Name.Name})
			}
		}
	}
	for i, l := range strings.Split(content, "\n")[lastImport:] {
		l = strings.TrimSpace(l)
		if !strings.HasPrefix(l, "//") && strings.Trim(l, "{}()[],; ") != "" {
			h.significant = append(h.significant, finding{path: name, line: lastImport + i + 1, text: l})
		}
	}
	before, _, sleeping := strings.Cut(content, "time.Sleep(")
	if test && sleeping && !strings.Contains(content, "synctest.Test(") {
		h.found(sleeps, name, strings.Count(before, "\n")+1, "a test that sleeps in real time")
	}
	return nil
}

func (h *house) addFunc(fn *ast.FuncDecl, f finding) {
	h.funcs = append(h.funcs, f)
	if f.lines > longestFunc {
		h.found(longestFns, f.path, f.line, fmt.Sprintf("%s has %d lines, over %d", f.text, f.lines, longestFunc))
	}
	if fn.Recv == nil {
		return
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(types.ExprString(fn.Recv.List[0].Type), "*"), "[")
	key := path.Dir(f.path) + "." + name
	h.methods[key] = append(h.methods[key], f)
}

// percentile reports what is longer than most lines, if that is more than one in twenty.
func (h *house) percentile(r rule, all []finding, most int) {
	longer := slices.DeleteFunc(slices.Clone(all), func(f finding) bool { return f.lines <= most })
	if len(longer)*20 <= len(all) {
		return
	}
	for _, f := range longer {
		text := fmt.Sprintf("%s has %d lines; more than 5 %% have over %d", f.text, f.lines, most)
		h.found(r, f.path, f.line, text)
	}
}

// copies reports each pair of runs of at least copyLines equal lines, where the first one begins.
func (h *house) copies() {
	lines := h.significant
	runs := make([]string, max(0, len(lines)-copyLines+1)) // by their first line
	places := map[string][]int{}
	for i := range runs {
		if lines[i].path != lines[i+copyLines-1].path {
			continue
		}
		for _, l := range lines[i : i+copyLines] {
			runs[i] += l.text + "\n"
		}
		places[runs[i]] = append(places[runs[i]], i)
	}
	same := func(i, j int) bool {
		return i >= 0 && runs[i] != "" && runs[i] == runs[j] && len(places[runs[i]]) <= copyPlaces
	}
	for i := range runs {
		for _, j := range places[runs[i]] {
			if j >= i+copyLines && same(i, j) && !same(i-1, j-1) {
				text := fmt.Sprintf("the same as in %s:%d", lines[j].path, lines[j].line)
				h.found(copies, lines[i].path, lines[i].line, text)
			}
		}
	}
}
