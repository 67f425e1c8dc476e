package deploy

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Alpine's own tools are on no other system: the package is read as they read it.
func TestAPK(t *testing.T) {
	control, files := apkFiles(t, packageOf(t, "1", "apk"))
	for _, want := range []string{"usr/bin/postern", "etc/init.d/postern", "etc/conf.d/postern",
		"usr/share/man/man1/postern.1.gz", "usr/share/man/man5/relay.toml.5.gz",
		"usr/share/zsh/site-functions/_postern"} {
		if _, found := files[want]; !found {
			t.Errorf("%s is not in it", want)
		}
	}
	for name := range files {
		if strings.Contains(name, "systemd") || strings.Contains(name, "sysusers") {
			t.Errorf("%s is for systemd", name)
		}
		if name == "etc/postern/" || strings.HasPrefix(name, "var/") {
			t.Errorf("apk 2 makes %s root's after the scripts", name)
		}
	}
	for _, name := range []string{".pre-install", ".post-install", ".post-upgrade", ".pre-deinstall"} {
		if !strings.HasPrefix(control[name], "#!/bin/sh\n") {
			t.Errorf("%s is no script: %q", name, control[name])
		}
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, []byte(control[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "sh", "-n", script)
	}
	for _, want := range []string{"pkgver = 1.0.0\n", "depend = openrc\n", "depend = so:libcrypto.so.3\n",
		"depend = musl\n"} {
		if !strings.Contains(control[".PKGINFO"], want) {
			t.Errorf("%q is not in %s", want, control[".PKGINFO"])
		}
	}
}

// apkFiles returns the files of an unsigned apk: two tar archives, each compressed for itself, the first of them
// without an end. It refuses what apk refuses: https://wiki.alpinelinux.org/wiki/Apk_spec
func apkFiles(t *testing.T, path string) (control, files map[string]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(data)
	first := unpack(t, r)
	hash := fmt.Sprintf("%x", sha256.Sum256(data[len(data)-r.Len():]))
	second := unpack(t, r)
	if r.Len() != 0 {
		t.Errorf("%d octets follow its data", r.Len())
	}
	control, files = apkArchive(t, first), apkArchive(t, second)
	if !strings.Contains(control[".PKGINFO"], "\ndatahash = "+hash+"\n") {
		t.Errorf("its data has the SHA-256 %s: %s", hash, control[".PKGINFO"])
	}
	return control, files
}

// unpack reads one compressed part, and nothing after it.
func unpack(t *testing.T, r *bytes.Reader) []byte {
	t.Helper()
	packed, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	packed.Multistream(false)
	part, err := io.ReadAll(bufio.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	return part
}

// octal is all that apk reads as a number in a header: no base-256, which Go writes and reads where octal is too short.
var octal = regexp.MustCompile(`^[0-7]*[\x00 ]*$`)

// apkArchive returns the files of one part, each compared with the SHA-1 that stands beside it.
func apkArchive(t *testing.T, part []byte) map[string]string {
	t.Helper()
	files := make(map[string]string)
	whole := bytes.NewReader(part)
	for r := tar.NewReader(whole); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		raw := part[len(part)-whole.Len()-512:][:512]
		for _, number := range [][]byte{raw[100:108], raw[108:116], raw[116:124], raw[124:136], raw[136:148]} {
			if !octal.Match(number) {
				t.Errorf("%s: apk does not read %q in its header", header.Name, number)
			}
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		sum := fmt.Sprintf("%x", sha1.Sum(content))
		if is := header.PAXRecords["APK-TOOLS.checksum.SHA1"]; header.Typeflag == tar.TypeReg && is != sum &&
			header.Name != ".PKGINFO" {
			t.Errorf("%s: its SHA-1 is %s, beside it stands %q", header.Name, sum, is)
		}
		files[header.Name] = string(content)
	}
}
