package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/config"
)

// TestReloadWhileStarting: a SIGHUP that comes before the listeners are there changes nothing until they are, and what
// it adds then is served once and closed with the rest.
func TestReloadWhileStarting(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), provider: newProvider(t), log: &testkit.Log{}}
	r.write("")
	r.addUser(auth.User{Login: rigLogin})
	c, err := r.load()
	if err != nil {
		t.Fatal(err)
	}
	var server *Server
	ready := make(chan struct{})
	early := false
	load := func() (*config.Config, error) {
		early = early || !server.serving.Load()
		return r.load()
	}
	server, err = New(t.Context(), Options{Config: c, Load: load, Ready: func() { close(ready) }, Poll: rigPoll,
		Logger: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r.write(`[[listener]]
		name = "second"
		address = "127.0.0.1:0"
		tls = "starttls"`)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Reload(over); !errors.Is(err, errStopping) || early {
		t.Errorf("before the listeners: %v, configuration read: %t", err, early)
	}
	reloaded, ended := make(chan error, 1), make(chan error, 1)
	go func() { reloaded <- server.Reload(t.Context()) }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { ended <- server.Run(ctx) }()
	<-ready
	if err := <-reloaded; err != nil || early {
		t.Errorf("while starting: %v, configuration read: %t", err, early)
	}
	addresses := server.Addresses()
	if len(addresses) != 2 {
		t.Errorf("listeners %v", addresses)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for name, address := range addresses {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s still accepts", name)
		}
	}
	if err := server.Reload(t.Context()); !errors.Is(err, errStopping) {
		t.Errorf("after the end: %v", err)
	}
}

// Where the store is, and what opens it, is fixed for the life of the process. What is said of it has no secret.
func TestReloadKeepsTheStore(t *testing.T) {
	const rest = "[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"
	const server = `hostname = "relay.example.com"
[store]
url = "postgres://postern@localhost/postern"
password = "hunter2"
seal_key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
node = "mail-1"
`
	read := func(text string) *config.Config {
		t.Helper()
		c := config.Parse("relay.toml", []byte(text+rest))
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := read(server)
	if err := sameInstance(before, read(server)); err != nil {
		t.Error(err)
	}
	for key, change := range map[string][2]string{
		"store.url":      {"localhost/", "localhost:5433/"},
		"store.password": {"hunter2", "hunter3"},
		"store.seal_key": {"MDE", "MTE"},
		"store.node":     {"mail-1", "mail-2"},
	} {
		err := sameInstance(before, read(strings.Replace(server, change[0], change[1], 1)))
		if err == nil || !strings.HasPrefix(err.Error(), key+" changed") || !strings.HasSuffix(err.Error(),
			"that needs a restart") || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "MTE") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := sameInstance(before, read("hostname = \"relay.example.com\"\n")); err == nil ||
		!strings.HasPrefix(err.Error(), "store.url changed") {
		t.Errorf("back to SQLite: %v", err)
	}
}
