package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestWhatBreaksARuleIsFound(t *testing.T) {
	wide := "// " + strings.Repeat("é", maxColumns-2)
	fits := "\t// " + strings.Repeat("é", maxColumns-tabWidth-3)
	body := func(names ...string) string { return "\t" + strings.Join(names, "()\n\t") + "()\n" }
	methods := ""
	for i := range maxMethods + 1 {
		methods += fmt.Sprintf("func (b *big[T]) m%d() {}\n", i)
	}
	one := body("a", "b", "c", "d", "e", "f", "g")
	files := map[string]string{
		"wide.go":           "package p\n" + wide + "\nfunc f() {\n" + fits + "\n}\n",
		"wide_test.go":      "package p\n\n" + wide + "\n",
		"testdata/wide.go":  wide,
		"tag.go":            "package p\n\ntype t struct {\n\ta int `toml:\"" + wide + "\"`\n}\n",
		"wide.txt":          wide,
		"script":            "#!/bin/sh\n" + wide,
		"doc.md":            wide + "\n| " + wide + "\n```\n" + wide + "\n```\n" + wide + " https://example.com\n",
		"long.go":           "package p\n\nfunc long() {\n" + strings.Repeat("\n", longestFunc-1) + "}\n",
		"big/big.go":        "package big\n\ntype big[T any] struct{}\n\n" + methods,
		"sleep_test.go":     "package p\n\nfunc f() { time.Sleep(1) }\n",
		"bubble_test.go":    "package p\n\nfunc f() { synctest.Test(t, func() { time.Sleep(1) }) }\n",
		"copy/one.go":       "package p\n\nimport (\n\t\"a\"\n\t\"b\"\n)\n\nfunc f() {\n" + one + "}\n",
		"copy/two.go":       "package p\n\nfunc g() {\n" + strings.ReplaceAll(one, "\n", "\n\n\t{\n\t}\n") + "}\n",
		"copy/different.go": "package p\n\nfunc h() {\n" + body("a", "b", "c", "d", "e") + body("x", "f", "g") + "}\n",
	}
	want := []string{
		"big/big.go:5: big.big has 21 methods, over 20",
		"copy/one.go:9: the same as in copy/two.go:4",
		"doc.md:1: 121 columns, over 120",
		"long.go:3: long has 71 lines, over 70",
		"script:2: 121 columns, over 120",
		"sleep_test.go:3: a test that sleeps in real time",
		"wide.go:2: 121 columns, over 120",
		"wide_test.go:3: 121 columns, over 120",
	}
	if got := found(t, files, longFiles, longFuncs); !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOneInTwentyMayBeLonger(t *testing.T) {
	files := map[string]string{"a_test.go": "package p\n" + strings.Repeat("\n", fileLines)}
	add := func(name string, lines int) {
		files[name] = "package p\n" + strings.Repeat("\n", lines-1)
	}
	for i := range 19 {
		add(fmt.Sprintf("f%d.go", i), fileLines)
	}
	add("long.go", fileLines+1)
	if got := found(t, files); len(got) != 0 {
		t.Errorf("one of twenty is found: %q", got)
	}
	add("f0.go", fileLines+1)
	if got := found(t, files); len(got) != 2 {
		t.Errorf("found %q, want two files", got)
	}
}

// found measures files and returns what breaks a rule other than those left out, sorted.
func found(t *testing.T, files map[string]string, leftOut ...rule) []string {
	t.Helper()
	fsys := fstest.MapFS{}
	var paths, got []string
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
		paths = append(paths, name)
	}
	slices.Sort(paths)
	findings, err := measure(fsys, append(paths, "deleted.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if !slices.Contains(leftOut, f.rule) {
			got = append(got, fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text))
		}
	}
	slices.Sort(got)
	return got
}
