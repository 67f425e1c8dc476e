package testkit

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Proxy is an HTTP CONNECT or SOCKS5 proxy for tests: which of them, the client's first octet says. It connects
// everybody to one address, whatever name was asked for, and remembers the names.
type Proxy struct {
	To string // where every tunnel leads
	// Route, unless nil, says where one leads instead, "" for nowhere. Nothing is added to the answer then.
	Route          func(address string) string
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
	return slices.Clone(p.asked)
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
	r, err := http.ReadRequest(br)
	if err != nil || r.Method != http.MethodConnect { // waits for what it knows
		io.Copy(io.Discard, br)
		return
	}
	p.ask(r.Host)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password))
	switch {
	case p.Answer != "":
		io.WriteString(nc, p.Answer)
	case p.User != "" && r.Header.Get("Proxy-Authorization") != want:
		io.WriteString(nc, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic "+
			"realm=\"x\"\r\n\r\n")
	default:
		p.tunnel(nc, br, r.Host, "HTTP/1.1 200 Connection established\r\nVia: fake\r\n\r\n")
	}
}

// take reads n octets; what does not come is 0.
func take(br *bufio.Reader, n int) []byte {
	b := make([]byte, n)
	io.ReadFull(br, b)
	return b
}

// socks is RFC 1928.
func (p *Proxy) socks(nc net.Conn, br *bufio.Reader) {
	if !p.socksLogin(nc, br) {
		return
	}
	kind := take(br, 4)[3]
	n := map[byte]int{1: 4, 4: 16}[kind]
	if kind == 3 {
		n = int(take(br, 1)[0])
	}
	host, port := take(br, n), take(br, 2)
	name := string(host)
	if kind != 3 {
		name = net.IP(host).String()
	}
	address := net.JoinHostPort(name, strconv.Itoa(int(port[0])<<8|int(port[1])))
	p.ask(address)
	if p.Answer != "" {
		io.WriteString(nc, p.Answer)
		return
	}
	p.tunnel(nc, br, address, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
}

// socksLogin is RFC 1929.
func (p *Proxy) socksLogin(nc net.Conn, br *bufio.Reader) bool {
	methods := take(br, int(take(br, 2)[1]))
	switch {
	case p.User == "":
		io.WriteString(nc, "\x05\x00")
		return true
	case !bytes.Contains(methods, []byte{2}):
		io.WriteString(nc, "\x05\xff")
		return false
	}
	io.WriteString(nc, "\x05\x02")
	user := take(br, int(take(br, 2)[1]))
	password := take(br, int(take(br, 1)[0]))
	if string(user) != p.User || string(password) != p.Password {
		io.WriteString(nc, "\x01\x01")
		return false
	}
	io.WriteString(nc, "\x01\x00")
	return true
}

// tunnel sends the answer together with what the far side says first, as a busy proxy may. A far side that speaks TLS
// from the first octet says nothing.
func (p *Proxy) tunnel(nc net.Conn, br *bufio.Reader, address, answer string) {
	to, greets := p.To, p.Route == nil
	if p.Route != nil {
		to = p.Route(address)
	}
	if to == "" {
		return
	}
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	p.own(far)
	greets = greets && !strings.HasSuffix(address, ":465") && !strings.HasSuffix(address, ":443")
	if first := make([]byte, 512); greets {
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
