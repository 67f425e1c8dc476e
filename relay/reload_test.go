package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"postern/auth"
	"postern/relay/config"
)

// TestReloadWhileStarting: a SIGHUP that comes before the listeners are there changes nothing until they are, and what
// it adds then is served once and closed with the rest.
func TestReloadWhileStarting(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), provider: newProvider(t), log: &logBuffer{}}
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
