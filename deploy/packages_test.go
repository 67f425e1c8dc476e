package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"postern/internal/testkit"
)

func TestMain(m *testing.M) {
	code := testkit.Main(m)
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// built is the directory of the packages that all tests look at. Written under packages' Once.
var built string

// packages builds those of this machine's architecture: version 1.0.0 in "1", and 1.1.0 of the same binary in "2".
var packages = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-packages-")
	if err != nil {
		return "", err
	}
	built = dir
	if err := pack("..", dir+"/1", "VERSION=1.0.0"); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "postern-"+runtime.GOARCH+"-glibc")
	deb, err := filepath.Glob(dir + "/1/*.deb")
	if err != nil || len(deb) != 1 {
		return "", errors.Join(err, errors.New("not one deb"))
	}
	if err := command("sh", "-c", `dpkg-deb --fsys-tarfile "$0" | tar -xO ./usr/bin/postern >"$1"`, deb[0],
		binary).Run(); err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(binary, 0o755), keepProgram(dir)); err != nil {
		return "", err
	}
	return dir, pack("..", dir+"/2", "VERSION=1.1.0", "BINARIES="+dir, "FORMATS=deb rpm msi")
})

// pack runs the packages script of a directory.
func pack(source, out string, env ...string) error {
	cmd := command(filepath.Join(source, "scripts/packages"), out)
	cmd.Env = append(cmd.Env, append(env, "ARCHES="+runtime.GOARCH, "GIT_OPTIONAL_LOCKS=0", "DOCS=none")...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(said)))
	}
	return nil
}

// command is one that finds the programs of root and speaks English.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
	return cmd
}

// run returns what a command said. It must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// packageOf returns the path of the package of a kind, in version 1 (1.0.0) or 2 (1.1.0).
func packageOf(t *testing.T, version, kind string) string {
	t.Helper()
	testkit.Need(t, "libssl-dev")
	testkit.Need(t, "musl-dev")
	dir, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, version, "*."+kind))
	if err != nil || len(all) != 1 {
		t.Fatalf("packages: %q, %v", all, err)
	}
	return all[0]
}

// Somebody else, elsewhere and later, gets the same octets.
func TestPackagesAreReproducible(t *testing.T) {
	first := filepath.Dir(packageOf(t, "1", "deb"))
	elsewhere := t.TempDir()
	repository := strings.TrimSpace(run(t, "git", "rev-parse", "--absolute-git-dir"))
	run(t, "sh", "-c", `cd .. && git ls-files -z --cached --others --exclude-standard |
		tar -c --null --files-from=- | tar -x -m -C "$0" && echo "gitdir: $1" >"$0/.git"`, elsewhere, repository)
	out := t.TempDir()
	if err := pack(elsewhere, out, "VERSION=1.0.0", "TZ=Asia/Kathmandu"); err != nil {
		t.Fatal(err)
	}
	sums := run(t, "cat", filepath.Join(first, "SHA256SUMS"))
	if again := run(t, "cat", filepath.Join(out, "SHA256SUMS")); again != sums {
		t.Errorf("first\n%sthen\n%s", sums, again)
	}
	kinds := []string{".deb", ".rpm", ".apk", ".cdx.json"}
	if runtime.GOARCH == "amd64" && os.Getenv("CI") == "true" {
		kinds = append(kinds, ".msi")
	}
	for _, kind := range kinds {
		if !strings.Contains(sums, kind+"\n") {
			t.Errorf("%s is not in SHA256SUMS:\n%s", kind, sums)
		}
	}
	run(t, "sh", "-c", `cd "$0" && sha256sum --strict -c SHA256SUMS`, out)
}

func TestBinaryOfPackage(t *testing.T) {
	binary := binaryOf(t)
	if said := run(t, binary, "version"); !strings.HasPrefix(said, "postern v1.0.0, commit ") ||
		!strings.Contains(said, "\nsigner: openssl 3.") {
		t.Errorf("version says %q", said)
	}
	linked(t, binary, "libc.so.6")
	apk := filepath.Join(t.TempDir(), "postern")
	run(t, "sh", "-c", `gunzip -c "$0" | tar -xO --ignore-zeros usr/bin/postern >"$1"`, packageOf(t, "1", "apk"), apk)
	linked(t, apk, "libc.so")
}

func binaryOf(t *testing.T) string {
	t.Helper()
	return filepath.Join(filepath.Dir(packageOf(t, "1", "deb")), "..", "postern-"+runtime.GOARCH+"-glibc")
}

// linked checks what a binary needs: OpenSSL 3 and a libc, and of GNU's none newer than packages demand.
func linked(t *testing.T, binary, libc string) {
	t.Helper()
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if slices.Sort(libraries); err != nil || !slices.Equal(libraries, []string{libc, "libcrypto.so.3"}) {
		t.Errorf("it needs %q, %v", libraries, err)
	}
	symbols, err := f.ImportedSymbols()
	if err != nil || len(symbols) < 20 {
		t.Fatalf("%d symbols, %v", len(symbols), err)
	}
	for _, s := range symbols {
		if s.Library == "libcrypto.so.3" && s.Version != "OPENSSL_3.0.0" {
			t.Errorf("%s is of %s", s.Name, s.Version)
		}
		var minor int
		if fmt.Sscanf(s.Version, "GLIBC_2.%d", &minor); minor > 34 { // RHEL 9, Ubuntu 22.04
			t.Errorf("%s is of %s", s.Name, s.Version)
		}
	}
}

func TestDebByLintian(t *testing.T) {
	lintian := testkit.Need(t, "lintian")
	out, err := command(lintian, "--fail-on=error", "--allow-root", packageOf(t, "1", "deb")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Alpine's own tools are on no other system: the package is read as the archive that it is.
func TestAPK(t *testing.T) {
	files := apkFiles(t, packageOf(t, "1", "apk"))
	for _, want := range []string{"usr/bin/postern", "etc/init.d/postern", "etc/conf.d/postern", "etc/postern/",
		".pre-install", ".post-install", ".post-upgrade", ".pre-deinstall"} {
		if _, found := files[want]; !found {
			t.Errorf("%s is not in it", want)
		}
	}
	for name, content := range files {
		switch {
		case strings.Contains(name, "systemd") || strings.Contains(name, "sysusers"):
			t.Errorf("%s is for systemd", name)
		case strings.HasPrefix(content, "#!"):
			script := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(script, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "sh", "-n", script)
		}
	}
	for _, want := range []string{"pkgver = 1.0.0\n", "depend = openrc\n", "depend = so:libcrypto.so.3\n",
		"depend = musl\n"} {
		if !strings.Contains(files[".PKGINFO"], want) {
			t.Errorf("%q is not in %s", want, files[".PKGINFO"])
		}
	}
}

// apkFiles returns the files of an apk: three tar archives, each compressed for itself, two of them without an end.
func apkFiles(t *testing.T, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(packed); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		var content []byte
		if header.Size < 1<<20 {
			if content, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
		files[header.Name] = string(content)
	}
}
