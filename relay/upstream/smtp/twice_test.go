package smtp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

func TestTwiceThenRefusedIsUncertain(t *testing.T) {
	dials := 0
	u, err := New(whole(Config{Host: "localhost", TLS: "none",
		Settings: upstream.Settings{MaxConnections: 1, Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, errors.New("connection refused")
			}
			l, _ := net.Listen("tcp", "127.0.0.1:0")
			go func() {
				c, _ := l.Accept()
				l.Close()
				defer c.Close()
				r := bufio.NewReader(c)
				io.WriteString(c, "220 hi\r\n")
				msgs, out := 0, ""
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					switch {
					case strings.HasPrefix(line, "EHLO"):
						io.WriteString(c, "250-hi\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
					case strings.HasPrefix(line, "BDAT"):
						n, _ := strconv.Atoi(strings.Fields(line)[1])
						io.CopyN(io.Discard, r, int64(n))
						if msgs++; msgs == 2 {
							return // took the message, died before the replies left
						}
						io.WriteString(c, out+"250 taken\r\n")
						out = ""
					default:
						out += "250 ok\r\n"
					}
				}
			}()
			return net.Dial("tcp", l.Addr().String())
		}}}))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := mail.ParseAddress("a@example.com")
	send := func() mail.Result {
		s, until := u.Reserve(time.Now(), "")
		if s == nil {
			t.Fatal(until)
		}
		defer s.Release()
		return s.Send(t.Context(), upstream.Transaction{ID: "x", From: a, Recipients: []mail.Recipient{{To: a}},
			Content: mail.BytesContent("From: a@example.com\r\n\r\nx\r\n")})[0]
	}
	if r := send(); r.Class != mail.Delivered {
		t.Fatal(r)
	}
	r := send()
	t.Logf("class %v uncertain %v reply %v", r.Class, r.Uncertain, r.Reply)
	if !r.Uncertain {
		t.Error("the whole message went out, no reply came, and the result does not say so")
	}
}
