package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/relay/config"
	"postern/relay/seal"
)

// placed reads a relay.toml with a [store] in a directory of its own, as commands do.
func placed(t *testing.T, store string) (c *config.Config, o Options) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.toml")
	if err := os.WriteFile(path, []byte("data_dir = \"data\"\n[store]\n"+store), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return c, Of(c)
}

func TestPlaceOfTheFile(t *testing.T) {
	fileOnly(t)
	c, o := placed(t, "max_size = \"1GB\"\nmin_free = \"300MB\"\n")
	if o.Dir != c.DataDir || o.MaxBytes != 1e9 || o.MinFree != 3e8 || o.URL.Server() || o.Node != "" ||
		o.Place() != filepath.Join(c.DataDir, FileName) {
		t.Errorf("%+v", o)
	}
	nothing := func(when string) {
		t.Helper()
		if there, err := o.There(t.Context()); there || err != nil {
			t.Errorf("%s: %v, %v", when, there, err)
		}
		if s, err := OpenThere(t.Context(), o); s != nil || err != nil {
			t.Errorf("%s: %v, %v", when, s, err)
		}
		if _, err := os.Stat(o.Place()); err == nil {
			t.Errorf("%s: a store was made", when)
		}
	}
	nothing("without data_dir")
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	nothing("with an empty data_dir")
	if Serving(o) {
		t.Error("nobody runs there")
	}
	o.Daemon = true
	daemon := open(t, o)
	if there, err := o.There(t.Context()); !there || err != nil || !Serving(Of(c)) {
		t.Errorf("with a daemon: %v, %v, serving %v", there, err, Serving(Of(c)))
	}
	s, err := OpenThere(t.Context(), Of(c))
	if s == nil || err != nil {
		t.Fatalf("%v, %v", s, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Close(); err != nil || Serving(o) {
		t.Errorf("after its end: %v, serving %v", err, Serving(o))
	}
}

// What cannot be looked at is no reason to say that there is nothing.
func TestThereIsNotGuessed(t *testing.T) {
	_, o := placed(t, "")
	if err := os.WriteFile(o.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if there, err := o.There(t.Context()); there || err == nil {
		t.Errorf("a file for data_dir: %v, %v", there, err)
	}
	if _, err := OpenThere(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("a file for data_dir: %v", err)
	}
}

const atServer = `url = "postgres://postern@db1,db2:5433/mail?sslmode=verify-full"
password = "env:POSTERN_TEST_PASSWORD"
seal_key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
node = "mail-1"
degraded = "refuse"
`

func TestPlaceAtTheServer(t *testing.T) {
	t.Setenv("POSTERN_TEST_PASSWORD", "hunter2")
	c, o := placed(t, atServer)
	if o.Place() != "postgres://postern@db1,db2:5433/mail" || o.Password != "hunter2" || o.Node != "mail-1" ||
		o.Degraded != config.DegradedRefuse || o.MinFree >= 0 || o.Dir != c.DataDir || o.MaxBytes != 10e9 {
		t.Errorf("%+v", o)
	}
	sealed, err := seal.New([]byte("01234567890123456789012345678901"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same on all nodes, and nothing is made on the disk for it
		sealer, err := o.Sealer()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := sealer.Open("x", sealed.Seal("x", []byte("secret"))); err != nil || string(b) != "secret" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("data_dir was made")
	}
}

// A command that needs no store is not kept from its work by a secret that is missing; one that does says which.
func TestUnreadableSecretIsToldByOpen(t *testing.T) {
	_, o := placed(t, atServer)
	_, err := Open(t.Context(), o)
	_, err2 := o.There(t.Context())
	_, err3 := o.Sealer()
	_, err4 := OpenThere(t.Context(), o)
	for _, err := range []error{err, err2, err3, err4} {
		if err == nil || !strings.HasPrefix(err.Error(), "store.password: environment variable "+
			"POSTERN_TEST_PASSWORD is not set") {
			t.Errorf("%v", err)
		}
	}
}
