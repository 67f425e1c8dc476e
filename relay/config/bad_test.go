package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is said now into the files of testdata as what is expected")

// Each file of testdata/bad must be refused, each of testdata/warn accepted with warnings, and each of
// testdata/good accepted in silence. What must be said stands at the end of the file:
//
//	# want: LINE: KEY: MESSAGE    a problem
//	# warn: LINE: KEY: MESSAGE    a warning
//
// What the file needs around it stands at its start:
//
//	# file: NAME MODE CONTENT     a file beside it, \n in CONTENT being a line end
//	# env: NAME=VALUE             an environment variable
//	# mode: MODE                  the mode of the file itself, 0644 by default
func TestFiles(t *testing.T) {
	for _, kind := range []string{"bad", "warn", "good"} {
		files, err := filepath.Glob(filepath.Join("testdata", kind, "*.toml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in testdata/%s: %v", kind, err)
		}
		for _, file := range files {
			t.Run(kind+"/"+strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
				testFile(t, kind, file)
			})
		}
	}
}

func testFile(t *testing.T, kind, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path := stage(t, data)
	config, err := Load(path)
	said, problems, warnings := saidOf(t, path, config, err)
	if (kind == "bad") != (problems > 0) || (kind == "warn") != (kind != "bad" && warnings > 0) {
		t.Errorf("%d problems and %d warnings, in testdata/%s", problems, warnings, kind)
	}
	if strings.Contains(said, "hunter") {
		t.Errorf("a password is told: %s", said)
	}
	body, expected := splitExpected(string(data))
	if *update && said != expected {
		if err := os.WriteFile(file, []byte(body+said), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if said != expected {
		t.Errorf("%s\nsays\n%s\ninstead of\n%s", body, said, expected)
	}
}

// saidOf renders problems and warnings as the files expect them, without the temporary directory.
func saidOf(t *testing.T, path string, c *Config, err error) (said string, problems, warnings int) {
	var b strings.Builder
	write := func(kind string, ps []Problem) {
		for _, p := range ps {
			if p.File != path {
				t.Errorf("%s: %q is not the file", p, p.File)
			}
			message := strings.ReplaceAll(p.Message, filepath.Dir(path), "DIR")
			fmt.Fprintf(&b, "# %s: %d: %s: %s\n", kind, p.Line, p.Key, message)
		}
	}
	var all *Error
	switch {
	case errors.As(err, &all):
		problems = len(all.Problems)
		write("want", all.Problems)
	case err != nil:
		t.Fatalf("Load: %v, not an *Error", err)
	default:
		warnings = len(c.Warnings())
		write("warn", c.Warnings())
	}
	return b.String(), problems, warnings
}

func splitExpected(data string) (body, expected string) {
	for _, mark := range []string{"# want: ", "# warn: "} {
		if i := strings.Index(data, "\n"+mark); i >= 0 {
			return data[:i+1], data[i+1:]
		}
	}
	return data, ""
}

// stage puts the file into a directory of its own with what it needs around it.
func stage(t *testing.T, data []byte) string {
	t.Helper()
	dir, mode := t.TempDir(), os.FileMode(0o644)
	for line := range bytes.Lines(data) {
		verb, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), ": ")
		switch verb {
		case "# file":
			part := strings.SplitN(rest, " ", 3)
			writeMode(t, filepath.Join(dir, part[0]), strings.ReplaceAll(part[2], `\n`, "\n"), parseMode(t, part[1]))
		case "# env":
			name, value, _ := strings.Cut(rest, "=")
			t.Setenv(name, value)
		case "# mode":
			mode = parseMode(t, rest)
		}
	}
	path := filepath.Join(dir, "relay.toml")
	writeMode(t, path, string(data), mode)
	return path
}

func parseMode(t *testing.T, s string) os.FileMode {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		t.Fatal(err)
	}
	return os.FileMode(n)
}

func writeMode(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}
