package deploy

import (
	"debug/elf"
	"errors"
	"fmt"
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
	if err := errors.Join(document(dir), pack("..", dir+"/1", "VERSION=1.0.0", "DOCS="+dir)); err != nil {
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
	return dir, pack("..", dir+"/2", "VERSION=1.1.0", "BINARIES="+dir, "DOCS="+dir, "FORMATS=deb rpm msi")
})

// document writes what stands for the manual pages and completions that `make docs` makes of the commands.
func document(dir string) error {
	for _, name := range []string{"man/man1/postern.1", "man/man1/postern-check.1", "man/man5/relay.toml.5",
		"completions/postern.bash", "completions/postern.fish", "completions/_postern"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(".TH "+name+"\n"), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// pack runs the packages script of a directory.
func pack(source, out string, env ...string) error {
	cmd := command(filepath.Join(source, "scripts/packages"), out)
	cmd.Env = append(cmd.Env, append(env, "ARCHES="+runtime.GOARCH, "GIT_OPTIONAL_LOCKS=0")...)
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
	if err := pack(elsewhere, out, "VERSION=1.0.0", "DOCS="+filepath.Dir(first), "TZ=Asia/Kathmandu"); err != nil {
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
