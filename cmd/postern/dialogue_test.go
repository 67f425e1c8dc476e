package main

import (
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/textproto"
	"testing"
	"time"
)

// dialogue is a client that says exactly what a test wants.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	text *textproto.Conn
}

// dial opens a TLS connection to the office and says EHLO.
func (o *office) dial() *dialogue {
	o.t.Helper()
	conn, err := tls.Dial("tcp", o.address, o.ca.Client("localhost"))
	if err != nil {
		o.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	d := &dialogue{t: o.t, conn: conn, text: textproto.NewConn(conn)}
	o.t.Cleanup(func() { d.text.Close() })
	d.expect(220)
	d.cmd(250, "EHLO client.example.com")
	return d
}

// cmd sends a line and wants a code.
func (d *dialogue) cmd(code int, format string, args ...any) string {
	d.t.Helper()
	if err := d.text.PrintfLine(format, args...); err != nil {
		d.t.Fatal(err)
	}
	return d.expect(code)
}

func (d *dialogue) expect(code int) string {
	d.t.Helper()
	_, text, err := d.text.ReadResponse(code)
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// print sends octets as they are.
func (d *dialogue) print(octets string) {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(octets)); err != nil {
		d.t.Fatal(err)
	}
}

func plainResponse(login, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
}
