//go:build !windows

package main

import (
	"bytes"
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
