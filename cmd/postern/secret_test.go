//go:build !windows

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is of Windows says so elsewhere, and what to do instead.
func TestCommandsOfWindows(t *testing.T) {
	for command, says := range map[string]string{
		"secret protect":  "write file:PATH",
		"service install": "systemctl enable --now postern",
		"service stop":    "is for Windows",
	} {
		var out, err bytes.Buffer
		root := rootCommand()
		root.SetIn(strings.NewReader("s3cret\n"))
		root.SetOut(&out)
		root.SetErr(&err)
		if code := run(root, strings.Fields(command)); code != exitNo || !strings.Contains(err.String(), says) {
			t.Errorf("postern %s: %d, %q", command, code, err.String())
		}
		if strings.Contains(out.String()+err.String(), "s3cret") {
			t.Errorf("postern %s shows the secret", command)
		}
	}
}

// A secret that cannot be the one that was meant is refused, with what to do; none is shown.
func TestSecretProtectRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.txt")
	for _, c := range []struct{ in, file, says string }{
		{in: "gr\xfc\xdfe\n", says: "--file"},
		{in: "gr\ufffd\n", says: "--file"},
		{in: "what?\n", says: "warning: the secret has a question mark"},
		{in: "one\ntwo\n", says: "more than one line"},
		{file: "\r\n", says: "is empty"},
		{file: "one\ntwo", says: "more than one line"},
		{file: "gr\xfc\xdfe", says: "save it as UTF-8"},
		{file: "\xff\xfeg\x00", says: "UTF-16"},
		{file: strings.Repeat("x", 5000), says: "is it the right file?"},
		{file: "\xef\xbb\xbfgrüße\r\n", says: "write file:PATH"}, // read, and here is no Windows
	} {
		args := []string{"secret", "protect"}
		if c.file != "" {
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--file", file)
		}
		var out bytes.Buffer
		root := rootCommand()
		root.SetIn(strings.NewReader(c.in))
		root.SetOut(&out)
		root.SetErr(&out)
		if code := run(root, args); code != exitNo || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q %.20q: %d, %s", c.in, c.file, code, out.String())
		}
	}
}
