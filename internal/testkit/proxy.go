package testkit

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// Proxy is an HTTP CONNECT or SOCKS5 proxy for tests: which of them, the client's first octet says. It connects
// everybody to one address, whatever name was asked for, and remembers the names.
type Proxy struct {
	To             string      // where every tunnel leads
	TLS            *tls.Config // spoken to over TLS; nil: in clear
	User, Password string      // "": no login
	Answer         string      // sent instead of a tunnel, "" for none; the connection is closed behind it
	Stall          bool        // never answers

	mu    sync.Mutex
	asked []string
	conns map[net.Conn]struct{}
	l     net.Listener
	wg    sync.WaitGroup
}

// Listen serves on a free port of 127.0.0.1 and returns host and port.
func (p *Proxy) Listen() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	p.l, p.conns = l, make(map[net.Conn]struct{})
	p.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(nc) })
		}
	})
	return l.Addr().String(), nil
}

// Asked returns what tunnels were asked for, in order.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// Close cuts everything off and waits.
func (p *Proxy) Close() {
	p.l.Close()
	p.mu.Lock()
	for nc := range p.conns {
		nc.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) own(nc net.Conn) {
	p.mu.Lock()
	p.conns[nc] = struct{}{}
	p.mu.Unlock()
}

func (p *Proxy) ask(name string) {
	p.mu.Lock()
	p.asked = append(p.asked, name)
	p.mu.Unlock()
}

func (p *Proxy) serve(nc net.Conn) {
	defer nc.Close()
	p.own(nc)
	if p.TLS != nil {
		nc = tls.Server(nc, p.TLS)
	}
	br := bufio.NewReader(nc)
	first, err := br.Peek(1)
	switch {
	case err != nil:
	case p.Stall:
		io.Copy(io.Discard, br)
	case first[0] == 5:
		p.socks(nc, br)
	default:
		p.connect(nc, br)
	}
}

func (p *Proxy) connect(nc net.Conn, br *bufio.Reader) {
	line, _ := br.ReadString('\n')
	login := ""
	for {
		field, err := br.ReadString('\n')
		if err != nil || strings.TrimSpace(field) == "" {
			break
		}
		if name, value, _ := strings.Cut(field, ":"); strings.EqualFold(name, "Proxy-Authorization") {
			login = strings.TrimSpace(value)
		}
	}
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "CONNECT" {
		return
	}
	p.ask(f[1])
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password))
	switch {
	case p.Answer != "":
		io.WriteString(nc, p.Answer)
	case p.User != "" && login != want:
		io.WriteString(nc, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
	default:
		p.tunnel(nc, br, f[1], "HTTP/1.1 200 Connection established\r\nVia: fake\r\n\r\n")
	}
}

func (p *Proxy) socks(nc net.Conn, br *bufio.Reader) {
	if !p.socksLogin(nc, br) {
		return
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(br, head); err != nil {
		return
	}
	n := map[byte]int{1: 4, 4: 16}[head[3]]
	if head[3] == 3 {
		b, _ := br.ReadByte()
		n = int(b)
	}
	host := make([]byte, n+2)
	if _, err := io.ReadFull(br, host); err != nil {
		return
	}
	name := string(host[:n])
	if head[3] != 3 {
		name = net.IP(host[:n]).String()
	}
	address := net.JoinHostPort(name, strconv.Itoa(int(host[n])<<8|int(host[n+1])))
	p.ask(address)
	if p.Answer != "" {
		io.WriteString(nc, p.Answer)
		return
	}
	p.tunnel(nc, br, address, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
}

func (p *Proxy) socksLogin(nc net.Conn, br *bufio.Reader) bool {
	hello := make([]byte, 2)
	if _, err := io.ReadFull(br, hello); err != nil {
		return false
	}
	methods := make([]byte, hello[1])
	io.ReadFull(br, methods)
	if p.User == "" {
		io.WriteString(nc, "\x05\x00")
		return true
	}
	if !strings.Contains(string(methods), "\x02") {
		io.WriteString(nc, "\x05\xff")
		return false
	}
	io.WriteString(nc, "\x05\x02")
	want := "\x01" + string(rune(len(p.User))) + p.User + string(rune(len(p.Password))) + p.Password
	got := make([]byte, 2)
	io.ReadFull(br, got)
	rest := make([]byte, int(got[1])+1)
	io.ReadFull(br, rest)
	secret := make([]byte, rest[len(rest)-1])
	io.ReadFull(br, secret)
	if string(got)+string(rest)+string(secret) != want {
		io.WriteString(nc, "\x01\x01")
		return false
	}
	io.WriteString(nc, "\x01\x00")
	return true
}

// tunnel sends the answer together with what the far side says first, as a busy proxy may. A far side that speaks TLS
// from the first octet says nothing.
func (p *Proxy) tunnel(nc net.Conn, br *bufio.Reader, address, answer string) {
	far, err := net.Dial("tcp", p.To)
	if err != nil {
		return
	}
	defer far.Close()
	p.own(far)
	if first := make([]byte, 512); !strings.HasSuffix(address, ":465") && !strings.HasSuffix(address, ":443") {
		n, _ := far.Read(first)
		answer += string(first[:n])
	}
	io.WriteString(nc, answer)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(nc, far)
		nc.Close()
	}()
	io.Copy(far, br)
	far.Close()
	<-done
}
