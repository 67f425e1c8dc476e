package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postern/internal/mangen"
	"postern/internal/testkit"
)

// docsEnv names the directory that `make docs` wants the manual pages and completions in.
const docsEnv = "POSTERN_DOCS"

// docsDate is the date of the pages: that of the version, so that they are made again the same.
func docsDate(t *testing.T) time.Time {
	t.Helper()
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now()
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		t.Fatalf("SOURCE_DATE_EPOCH: %v", err)
	}
	return time.Unix(seconds, 0)
}

// manualPages writes all pages, as readers of manuals look for them, and returns the directory.
func manualPages(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	date := docsDate(t)
	annotated, err := os.ReadFile("../../relay.toml")
	if err != nil {
		t.Fatal(err)
	}
	configuration, err := mangen.Configuration(string(annotated), "relay.toml", date)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(mangen.Commands(rootCommand(), date), configuration) {
		file := filepath.Join(dir, "man"+strings.TrimPrefix(filepath.Ext(p.Name), "."), p.Name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(p.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// keepDocs leaves what is in a directory where `make docs` wants it.
func keepDocs(t *testing.T, dir, as string) {
	t.Helper()
	if docs := os.Getenv(docsEnv); docs != "" {
		if err := os.CopyFS(filepath.Join(docs, as), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// shownPage is a page as mandoc shows it, without its line ends and what it sets bold.
func shownPage(t *testing.T, dir, page string) string {
	t.Helper()
	out, err := exec.Command(testkit.Need(t, "mandoc"), "-T", "utf8", "-O", "width=1000",
		filepath.Join(dir, "man"+page[len(page)-1:], page)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return plainWords(regexp.MustCompile(".\b").ReplaceAllString(string(out), ""))
}

// plainWords is text with one space between words.
func plainWords(s string) string { return strings.Join(strings.Fields(s), " ") }

// mandoc has nothing to say against the pages, not even about style, and finds all that they point to.
func TestManualPagesAreRight(t *testing.T) {
	t.Parallel()
	dir := manualPages(t)
	keepDocs(t, dir, "man")
	pages, err := filepath.Glob(filepath.Join(dir, "man?", "*"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("%q, %v", pages, err)
	}
	lint := exec.Command(testkit.Need(t, "mandoc"), append([]string{"-T", "lint", "-W", "style"}, pages...)...)
	lint.Env = append(os.Environ(), "MANPATH="+dir)
	out, err := lint.CombinedOutput()
	index := regexp.MustCompile(`(?m)^mandoc: outdated mandoc.db lacks .*\n`) // which the directory has not
	said := index.ReplaceAllString(string(out), "")
	if err != nil || said != "" {
		t.Errorf("%v\n%s", err, said)
	}
	groff := exec.Command(testkit.Need(t, "man"), append([]string{"--warnings=w", "-l"}, pages...)...)
	groff.Env = append(os.Environ(), "MANWIDTH=100", "LC_ALL=C.UTF-8")
	var complaints strings.Builder
	groff.Stderr = &complaints
	out, err = groff.Output()
	if err != nil || complaints.Len() > 0 || bytes.Count(out, []byte("\nSEE ALSO")) != len(pages) {
		t.Errorf("man: %v, %d octets\n%s", err, len(out), complaints.String())
	}
}

// Each command stands on its page with all that --help says of it.
func TestManualPagesHaveEveryCommand(t *testing.T) {
	t.Parallel()
	dir := manualPages(t)
	seen := 0
	for _, top := range rootCommand().Commands() {
		if !top.IsAvailableCommand() {
			continue
		}
		page := shownPage(t, dir, "postern-"+top.Name()+".1")
		var look func(c *cobra.Command)
		look = func(c *cobra.Command) {
			seen++
			wants := []string{c.CommandPath(), c.Long, c.Example, strings.Join(c.Aliases, ", ")}
			c.LocalFlags().VisitAll(func(f *pflag.Flag) {
				name, usage := pflag.UnquoteUsage(f)
				wants = append(wants, strings.TrimSpace("--"+f.Name+" "+name)+" "+usage)
			})
			for _, want := range wants {
				if !strings.Contains(page, plainWords(want)) {
					t.Errorf("%s: the page lacks %q", c.CommandPath(), want)
				}
			}
			for _, sub := range c.Commands() {
				look(sub)
			}
		}
		look(top)
	}
	if seen < 50 {
		t.Errorf("only %d commands", seen)
	}
}

// What relay.toml says, relay.toml(5) says: each of its lines, but for the signs of comments.
func TestManualPageSaysWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	annotated, err := os.ReadFile("../../relay.toml")
	if err != nil {
		t.Fatal(err)
	}
	page := shownPage(t, manualPages(t), "relay.toml.5")
	comments := regexp.MustCompile(`^[# ]+|\s+#+\s+`)
	for line := range strings.Lines(string(annotated)) {
		for part := range strings.SplitSeq(comments.ReplaceAllString(strings.TrimRight(line, "\n"), "\x00"), "\x00") {
			if !strings.Contains(page, plainWords(part)) {
				t.Errorf("it lacks %q", part)
			}
		}
	}
}
