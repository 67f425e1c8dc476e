package acme

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"testing"

	"postern/internal/testkit"
)

// sharedServer is a server of ours on the port where the CA looks.
func sharedServer(t *testing.T, k *Keeper, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	own := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{pebbleName}}).TLS
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "console")
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{own}, GetConfigForClient: k.Challenge},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-ended })
}

// asCA shakes hands as a CA does, and says what is served after it.
func asCA(address, name string, protos ...string) (served string, err error) {
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protos})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
	text, _ := io.ReadAll(conn)
	return string(text), nil
}

// The console and tls-alpn-01 can be on one port: the CA gets its answer and nothing else, everybody else the console.
func TestSharedPort(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	k := New(Options{})
	sharedServer(t, k, address)
	if _, err := asCA(address, "relay.example.com", "acme-tls/1"); err == nil {
		t.Error("a handshake of a CA that nobody asked")
	}
	c := challengeOf(TLSALPN01)
	cleanUp, err := k.options.board.pin(c)
	if err != nil {
		t.Fatal(err)
	}
	if served, err := asCA(address, "Relay.example.com", "acme-tls/1"); err != nil || served != "" {
		t.Errorf("served %q, %v", served, err)
	}
	if _, err := asCA(address, "mail.example.com", "acme-tls/1"); err == nil {
		t.Error("an answer for another name")
	}
	if served, err := asCA(address, "relay.example.com", "http/1.1"); err != nil || len(served) == 0 {
		t.Errorf("the console is gone: %q, %v", served, err)
	}
	cleanUp()
	if _, err := asCA(address, "relay.example.com", "acme-tls/1"); err == nil {
		t.Error("the answer stays")
	}
}

func TestPebbleSharedPort(t *testing.T) {
	z := newZone(t)
	_, o, log := withPebble(t, z, testkit.PebbleOptions{})
	o.Order, o.ALPNShared = []string{TLSALPN01}, true
	var got []Certificate
	o.Issued = func(all []Certificate) { got = all }
	k := New(*o)
	sharedServer(t, k, o.ALPN)
	if k.pass(t.Context()); len(got) != 1 {
		t.Fatal(log)
	}
	if served, err := asCA(o.ALPN, pebbleName, "http/1.1"); err != nil || len(served) == 0 {
		t.Errorf("%q, %v", served, err)
	}
}
