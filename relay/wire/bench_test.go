package wire

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
)

func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// TestIdleConnectionsAreCheap: an idle TLS connection that is logged in costs under 30 KiB, with its
// goroutine's stack, crypto/tls, and here even the client's side, which is in the same process.
func TestIdleConnectionsAreCheap(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory counts")
	}
	const n = 300
	s := startServer(t, func(o *Options, b *backend) { o.MaxConnections, o.MaxConnectionsPerIP = 2*n, 2*n })
	s.dial(t).login() // what is made once
	before := inUse()
	for range n {
		s.dial(t).login()
	}
	each := float64(inUse()-before) / n / 1024
	t.Logf("%.1f KiB a connection", each)
	if each > 30 {
		t.Errorf("%.1f KiB a connection", each)
	}
	if s.Stats().Connections != n+1 {
		t.Error("connections were lost")
	}
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkReused sends messages over one connection with TLS each.
func BenchmarkReused(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/chunked=%v", size>>10, chunked), func(b *testing.B) {
				s := startServer(b, func(o *Options, k *backend) {
					o.MaxMessageSize = 10 << 20
					k.onData = dataThat(discardAll)
				})
				c := s.dial(b)
				c.login()
				body := strings.Repeat(strings.Repeat("x", 74)+"\r\n", size/76)
				flight := "MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\n"
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if chunked {
						c.send(flight + fmt.Sprintf("BDAT %d LAST\r\n", len(body)) + body)
						c.expect("250 ")
						c.expect("250 ")
					} else {
						c.send(flight + "DATA\r\n")
						c.expect("250 ")
						c.expect("250 ")
						c.expect("354 ")
						c.send(body + ".\r\n")
					}
					c.expect("250 ")
				}
			})
		}
	}
}

// BenchmarkConnection makes a connection with a full handshake and AUTH for each message.
func BenchmarkConnection(b *testing.B) {
	s := startServer(b, func(o *Options, k *backend) { k.onData = dataThat(discardAll) })
	body := strings.Repeat(strings.Repeat("x", 74)+"\r\n", 50)
	b.ReportAllocs()
	for b.Loop() {
		c := s.dial(b)
		c.login()
		c.send("MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n")
		c.expect("250 ")
		c.expect("250 ")
		c.expect("354 ")
		c.send(body + ".\r\nQUIT\r\n")
		c.expect("250 ")
		c.expect("221 ")
		c.conn.Close()
	}
}

func discardAll(_ context.Context, t *Transfer) { io.Copy(io.Discard, t) }

var _ io.WriterTo = (*Transfer)(nil)
