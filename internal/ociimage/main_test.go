//go:build linux

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"postern/internal/testkit/pki"
)

// What no container could run by, or verify a provider by, makes no image.
func TestWhatMakesNoImage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1764288000")
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	authorities := file("ca.pem", ca.PEM)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program[18] = 0xb7 // e_machine: arm64
	other := file("arm64", program)
	program[18] = 0x3e
	amd64 := file("amd64", program)
	for _, c := range []struct {
		ca, binary string
		want       string
	}{
		{filepath.Join(dir, "none"), "amd64=" + amd64, "ca-certificates"},
		{file("empty.pem", nil), "amd64=" + amd64, "has no certificate"},
		{file("bad.pem", []byte(strings.Replace(string(ca.PEM), "MII", "AAA", 1))), "amd64=" + amd64, "certificate 1"},
		{authorities, "", "amd64=PATH arm64=PATH"},
		{authorities, amd64, "is not amd64=PATH"},
		{authorities, "riscv64=" + amd64, "is not amd64=PATH"},
		{authorities, "amd64=" + authorities, "no program for Linux"},
		{authorities, "amd64=" + other, "not for amd64"},
		{authorities, "arm64=" + amd64, "not for arm64"},
		{authorities, runtime.GOARCH + "=/bin/sh", "is not static"},
	} {
		out := filepath.Join(dir, "out.tar")
		var binaries []string
		if c.binary != "" {
			binaries = []string{c.binary}
		}
		err := run(out, c.ca, source{version: "1.0.0"}, binaries)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.ca, c.binary, err, c.want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s %s: there is an image", c.ca, c.binary)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if err := run("", authorities, source{}, nil); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("without a time: %v", err)
	}
}
