package store

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/config"
	"postern/relay/queue"
)

// The tests of this package are of both engines: TestOnPostgreSQL runs them again with this variable. Those of what
// only a file has skip then.
const onServerVariable = "POSTERN_TEST_STORE_ON_POSTGRESQL"

func onServer() bool { return os.Getenv(onServerVariable) != "" }

func TestOnPostgreSQL(t *testing.T) {
	if onServer() || testing.Short() {
		t.Skip("this is one of its tests")
	}
	testkit.SharedPostgreSQL(t) // or it is missing
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// What takes long and is the same for both is run on a file alone.
	const long = "^(TestKillWhileIndexing|TestSearchPagesAreStable|TestOneSearcherStarvesNobody|TestLockoutIsBounded|" +
		"TestStatisticsAreBounded)$"
	args := []string{"-test.timeout=10m", "-rapid.checks=10", "-test.skip=" + long}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), onServerVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// at turns options with a directory into those of the engine that is tested: each directory has a database of its own.
// Processes that a test starts find it by a file beside the directory.
func at(t testing.TB, o Options) Options {
	if !onServer() || o.Dir == "" {
		return o
	}
	note := noteOf(o)
	if _, err := os.Stat(note); errors.Is(err, os.ErrNotExist) {
		text := []byte(testkit.SharedPostgreSQL(t).NewDatabase(t))
		if err := os.WriteFile(note, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, err := noted(o)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func noteOf(o Options) string { return filepath.Clean(o.Dir) + ".database" }

// noted is what at has noted for a directory, for processes that a test starts.
func noted(o Options) (Options, error) {
	if !onServer() {
		return o, nil
	}
	text, err := os.ReadFile(noteOf(o))
	if err != nil {
		return o, err
	}
	return toServer(o, string(text))
}

// openNoted opens what at has noted.
func openNoted(ctx context.Context, o Options) (*Store, error) {
	o, err := noted(o)
	if err != nil {
		return nil, err
	}
	return Open(ctx, o)
}

// toServer is given the URL of testkit, with its password.
func toServer(o Options, text string) (Options, error) {
	u, err := url.Parse(text)
	if err != nil {
		return o, err
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	o.Node = cmp.Or(o.Node, "node-1")
	o.URL, err = config.ParseStoreURL(u.String())
	o.Password, o.SealKey = auth.Secret(password), auth.Secret(strings.Repeat("k", 32))
	return o, err
}

// ofFile is the engine of a store in a file. Tests of it are not of a server.
func ofFile(t testing.TB, s *Store) *file {
	if onServer() {
		t.Skip("this is of a file")
	}
	return s.engine.(*file)
}

// fileOnly skips a test that is of a file alone.
func fileOnly(t testing.TB) {
	if onServer() {
		t.Skip("this is of a file")
	}
}

// attempt is the version of a message that has had so many attempts.
func attempt(n int, id string) queue.Version { return queue.Version{ID: id, Attempts: n} }
