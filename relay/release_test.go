package relay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/release"
	"postern/internal/testkit"
	"postern/relay/seal"
	relaystore "postern/relay/store"
)

// What a release has left in data_dir, or in a database, is served: who could log in can, and what waited is sent.
func TestReleasedStoresAreServed(t *testing.T) {
	if onPostgreSQL() {
		t.Skip("it is run once")
	}
	const releases = "store/testdata/releases"
	entries, err := os.ReadDir(releases)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		dir := filepath.Join(releases, e.Name())
		t.Run(e.Name()+" file", func(t *testing.T) {
			r := releasedRig(t, "")
			file := testkit.Unzip(t, filepath.Join(dir, "postern.db.gz"))
			copyOf(t, file, filepath.Join(r.dir, "data", relaystore.FileName))
			key, err := os.ReadFile(filepath.Join(dir, seal.KeyFile))
			if err != nil {
				t.Fatal(err)
			}
			copyOf(t, key, filepath.Join(r.dir, "data", seal.KeyFile))
			r.serveReleased(e.Name())
		})
		t.Run(e.Name()+" database", func(t *testing.T) {
			url := testkit.SharedPostgreSQL(t).NewDatabase(t)
			testkit.Restore(t, url, testkit.Unzip(t, filepath.Join(dir, "postgres.sql.gz")))
			r := releasedRig(t, url)
			r.serveReleased(e.Name())
		})
	}
}

// releasedRig is a relay that is not started, with an empty data_dir.
func releasedRig(t *testing.T, database string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), database: database, provider: newProvider(t), log: &testkit.Log{}}
	r.write("")
	if err := os.Mkdir(filepath.Join(r.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) serveReleased(number string) {
	r.t.Helper()
	r.start()
	r.t.Cleanup(r.close)
	got := r.provider.wait(1)
	if !strings.Contains(got[0].data, "Subject: waits\r\n") {
		r.t.Errorf("%s", got[0].data)
	}
	r.eventually("no message that is due", func() bool { return len(r.queued()) == 2 }) // which are held
	r.client(rigLogin)
	said := strings.Contains(r.log.String(), "msg=upgraded from=v"+number)
	if want := release.Version() != "v"+number; said != want {
		r.t.Errorf("it says that it is upgraded: %t, want %t", said, want)
	}
}

func copyOf(t *testing.T, data []byte, path string) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
