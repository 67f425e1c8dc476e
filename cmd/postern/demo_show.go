package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

func (d *demo) printSettings() {
	_, port, _ := net.SplitHostPort(d.address)
	_, tlsPort, _ := net.SplitHostPort(d.implicit)
	config, trust := filepath.Join(d.home, "relay.toml"), filepath.Join(d.home, "data", "tls", "self-signed.crt")
	fmt.Fprintf(d.out, `
Try it with a mail client on this machine:

  Outgoing server  localhost
  Encryption       STARTTLS, port %s, or SSL/TLS, port %s; trust the self-signed certificate when asked
  Login            %s, method "normal password"
  Password         %s
  Send as          any address at %s

or from another terminal, in this directory:

  swaks --server localhost:%s --tls --auth-user %s --auth-password %s --from %s --to %s

  printf 'From: %s\r\nTo: %s\r\nSubject: hello\r\n\r\nhello\r\n' |
  curl --ssl-reqd --cacert %s --url smtp://localhost:%s \
       --user %s:%s --mail-from %s --mail-rcpt %s -T -

See what happened, and how the relay is:

  %s trace --config %s
  %s status --config %s

What the upstream takes is shown here. Ctrl-C ends the demo and removes everything.

`, port, tlsPort, demoLogin, d.password, demoDomain,
		port, demoLogin, d.password, demoLogin, demoRcpt,
		demoLogin, demoRcpt, trust, port, demoLogin, d.password, demoLogin, demoRcpt,
		ownCommand(), config, ownCommand(), config)
}

// ownCommand is how this program was started, as it may be typed again: what go run builds is gone with it.
func ownCommand() string {
	path, err := os.Executable()
	if err != nil {
		return "postern"
	}
	return commandOf(path, os.Args[0])
}

func commandOf(executable, typed string) string {
	switch {
	case strings.Contains(filepath.ToSlash(executable), "/go-build"):
		return "go run ./cmd/postern"
	case strings.ContainsAny(typed, " \t'\"$"):
		return "'" + strings.ReplaceAll(typed, "'", `'\''`) + "'"
	}
	return typed
}

// show prints what the upstream takes until ctx ends.
func (d *demo) show(ctx context.Context) error {
	if d.provider != nil {
		return d.showProvider(ctx)
	}
	for {
		m, err := d.upstream.WaitMessage(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "%s  from <%s> to <%s>, %s\n", m.Received.Format("15:04:05"), m.From,
			strings.Join(m.Recipients, ", "), size(int64(len(m.Data))))
	}
}
