package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestConninfo(t *testing.T) {
	for _, c := range []struct{ url, place, info string }{
		{"sqlite", "sqlite", ""},
		{"postgres://postern@db.example.net/postern", "postgres://postern@db.example.net/postern",
			"host='db.example.net' port='5432' user='postern' dbname='postern' connect_timeout='5' " +
				"sslmode='verify-full' target_session_attrs='any'"},
		{"postgresql://postern@DB1:5433,[2001:db8::1],192.0.2.7/postern?connect_timeout=3&sslrootcert=/etc/ca.pem",
			"postgres://postern@db1:5433,[2001:db8::1],192.0.2.7/postern",
			"host='db1,2001:db8::1,192.0.2.7' port='5433,5432,5432' user='postern' dbname='postern' " +
				"connect_timeout='3' sslmode='verify-full' sslrootcert='/etc/ca.pem' " +
				"target_session_attrs='read-write'"},
		// One host elsewhere is enough.
		{"postgres://postern@localhost,db/postern?target_session_attrs=primary",
			"postgres://postern@localhost,db/postern",
			"host='localhost,db' port='5432,5432' user='postern' dbname='postern' connect_timeout='5' " +
				"sslmode='verify-full' target_session_attrs='primary'"},
		{"postgres://postern@db/postern?sslmode=require&sslrootcert=system", "postgres://postern@db/postern",
			"host='db' port='5432' user='postern' dbname='postern' connect_timeout='5' sslmode='require' " +
				"target_session_attrs='any'"},
		{"postgres://postern@[::1]/postern", "postgres://postern@[::1]/postern",
			"host='::1' port='5432' user='postern' dbname='postern' connect_timeout='5' sslmode='prefer' " +
				"target_session_attrs='any'"},
		{"postgres://postern@/postern?host=/var/run/postgresql", "postgres://postern@/postern?host=/var/run/postgresql",
			"host='/var/run/postgresql' port='5432' user='postern' dbname='postern' connect_timeout='5' " +
				"sslmode='prefer' target_session_attrs='any'"},
		{"postgres://postern@:5433/postern?host=/run/pg/&sslmode=disable",
			"postgres://postern@:5433/postern?host=/run/pg",
			"host='/run/pg' port='5433' user='postern' dbname='postern' connect_timeout='5' sslmode='disable' " +
				"target_session_attrs='any'"},
		// Names that would end their quotes, or the URL, do not.
		{`postgres://o'neil%3A%40%5Cx%20y@db/a%2Fb%3Fc`, `postgres://o%27neil%3A%40%5Cx%20y@db/a%2Fb%3Fc`,
			`host='db' port='5432' user='o\'neil:@\\x y' dbname='a/b?c' connect_timeout='5' sslmode='verify-full' ` +
				`target_session_attrs='any'`},
		{"postgres://me@tenant@db/postern", "postgres://me%40tenant@db/postern",
			"host='db' port='5432' user='me@tenant' dbname='postern' connect_timeout='5' sslmode='verify-full' " +
				"target_session_attrs='any'"},
	} {
		u, err := ParseStoreURL(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if u.Place() != c.place || u.Conninfo() != c.info || u.Server() != (c.info != "") {
			t.Errorf("%s:\n%s\n%s\ninstead of\n%s\n%s", c.url, u.Place(), u.Conninfo(), c.place, c.info)
		}
		again, err := ParseStoreURL(u.String())
		if err != nil || !u.Equal(again) || again.String() != u.String() {
			t.Errorf("%s is written %s, which is read as %s, %v", c.url, u, again, err)
		}
	}
}

// TestStoreURLSaysNoPassword: wherever a person may have put the password, no message repeats it.
func TestStoreURLSaysNoPassword(t *testing.T) {
	for _, text := range []string{
		"postgres://u:hunter2@db/postern", "postgres://u:hunter2@", "postgres://u:hunter2", "postgres://:hunter2@db/x",
		"postgres://u:a@hunter2@db/postern", "postgres://u:a/hunter2@db/postern", "postgres://u:a?hunter2@db/postern",
		"postgres://u:a?sslmode=hunter2@db/postern", "postgres://u@db:hunter2/postern", "postgres://u@hunter2:/postern",
		"postgres://u@db/postern?password=hunter2", "postgres://u@db/postern?sslpassword=hunter2",
		"postgres://u@db/postern?sslmode=hunter2", "postgres://u@db/postern?host=hunter2", "postgres:u:hunter2@db/x",
		"postgre://u:hunter2@db/postern", "postgres://u:hunter2%zz@db/postern", "u:hunter2@db", "SQLITE hunter2",
	} {
		u, err := ParseStoreURL(text)
		if err == nil || strings.Contains(err.Error(), "hunter") || u.Server() {
			t.Errorf("%s: %v, %v", text, u, err)
		}
	}
}

const shared = `data_dir = "data"
[store]
url = "postgres://postern@db/postern?sslrootcert=ca.pem&sslcert=tls/client.pem&sslkey=/etc/client.key"
password = "file:pw"
seal_key = "env:SEAL_KEY"
`

// TestStoreFiles: the files of the URL and of the secrets lie beside relay.toml, and are looked at for a reload.
func TestStoreFiles(t *testing.T) {
	c := Parse("/etc/postern/relay.toml", []byte(shared))
	for _, name := range []string{"/etc/postern/ca.pem", "/etc/postern/tls/client.pem", "/etc/client.key",
		"/etc/postern/pw"} {
		if !slices.Contains(c.Files(), name) {
			t.Errorf("%s is not among %s", name, c.Files())
		}
	}
	if info := c.Store.URL.Conninfo(); !strings.Contains(info, "sslrootcert='/etc/postern/ca.pem'") {
		t.Error(info)
	}
	for _, s := range Effective(c) {
		switch s.Key {
		case "store.password":
			if !s.Secret || s.Value != "[secret] file:pw" {
				t.Errorf("%+v", s)
			}
		case "store.url":
			if !strings.HasPrefix(s.Value, "postgres://postern@db/postern?sslcert=/etc/postern/tls/client.pem&") {
				t.Errorf("%+v", s)
			}
		case "store.node":
			if s.Value == "" || s.Written {
				t.Errorf("%+v", s)
			}
		}
	}
}

// TestStoreSecrets: a command that only reads relay.toml gets what the store needs of secrets, and changes nothing.
func TestStoreSecrets(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "relay.toml")
	writeMode(t, path, shared, 0o600)
	c, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := StoreSecrets(c); err == nil || !strings.HasPrefix(err.Error(), "store.password: ") {
		t.Errorf("without the file: %v", err)
	}
	writeMode(t, filepath.Join(dir, "pw"), "hunter2\n", 0o600)
	if _, _, err := StoreSecrets(c); err == nil || !strings.HasPrefix(err.Error(), "store.seal_key: ") {
		t.Errorf("without the variable: %v", err)
	}
	t.Setenv("SEAL_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	password, key, err := StoreSecrets(c)
	if err != nil || password != "hunter2" || key != "01234567890123456789012345678901" {
		t.Errorf("%q, %v", string(password), err)
	}
	if c.Store.Password.Value() != "" {
		t.Error("the configuration has changed")
	}
	c = Parse("relay.toml", []byte("[store]\nseal_key = \"env:POSTERN_TEST_UNSET\"\n"))
	if _, key, err := StoreSecrets(c); err != nil || key != "" {
		t.Errorf("with SQLite: %v", err)
	}
}

func FuzzStoreURL(f *testing.F) {
	for _, text := range []string{"sqlite", "postgres://a@b/c",
		"postgres://a@b:1,[::1]:2/c?sslmode=disable&sslcert=%27&sslkey=x",
		"postgres://a@:1/c?host=/x", "postgres://a%27@b/c\\?connect_timeout=3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseStoreURL(text)
		if err != nil {
			return
		}
		again, err := ParseStoreURL(u.String())
		if err != nil || again.Conninfo() != u.Conninfo() {
			t.Errorf("%q is written %q, which is %q instead of %q: %v", text, u, again.Conninfo(), u.Conninfo(), err)
		}
	})
}
