package via

import (
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxHead bounds the proxy's answer, in octets.
const maxHead = 16 << 10

// connect makes the tunnel by HTTP CONNECT.
func (p *Proxy) connect(nc net.Conn, address string) error {
	head := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if p.login {
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password)) +
			"\r\n"
	}
	if _, err := io.WriteString(nc, head+"\r\n"); err != nil {
		return err
	}
	for range 4 { // RFC 9110 §15.2: interim answers come before the one that counts
		answer, err := readHead(nc)
		if err != nil {
			return err
		}
		code, ok := statusOf(answer)
		switch {
		case !ok:
			return errNoHTTP
		case code/100 == 1:
			continue
		case code/100 == 2:
			return nil
		}
		return p.refused(address, code, answer)
	}
	return errNoHTTP
}

// readHead reads to the empty line and not one octet further: behind it the upstream's greeting may follow at once.
func readHead(nc net.Conn) ([]byte, error) {
	head, b := make([]byte, 0, 512), make([]byte, 1)
	for len(head) < maxHead {
		if _, err := io.ReadFull(nc, b); err != nil {
			return nil, err
		}
		head = append(head, b[0])
		if len(head) == 5 && string(head) != "HTTP/" { // do not wait for the end of something else
			return nil, errNoHTTP
		}
		if b[0] == '\n' && (bytes.HasSuffix(head, []byte("\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n"))) {
			return head, nil
		}
	}
	return nil, errLongHead
}

func statusOf(head []byte) (int, bool) {
	line, _, _ := strings.Cut(string(head), "\n")
	f := strings.Fields(line)
	if len(f) < 2 || len(f[1]) != 3 {
		return 0, false
	}
	code, err := strconv.Atoi(f[1])
	return code, err == nil && code >= 100 && code < 600
}

// refused makes an error of an answer that opens no tunnel. It leaves out the proxy's own words, which may repeat our
// credentials.
func (p *Proxy) refused(address string, code int, head []byte) *Error {
	said := strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
	var e *Error
	switch {
	case code == http.StatusProxyAuthRequired:
		e = p.fail(address, nil, p.loginText(said, head))
		e.Login = true
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		e = p.fail(address, nil, "cannot reach "+address+" ("+said+")")
	case code == http.StatusForbidden, code == http.StatusMethodNotAllowed, code == http.StatusUnauthorized:
		e = p.fail(address, nil, "does not let us connect to "+address+" ("+said+
			"); its rules must allow CONNECT to this host and port")
	default:
		e = p.fail(address, nil, "does not connect us to "+address+" ("+said+")")
	}
	e.Code = code
	return e
}

// loginText says what a 407 means for what we sent.
func (p *Proxy) loginText(said string, head []byte) string {
	schemes := challenges(head)
	switch {
	case len(schemes) > 0 && !slices.ContainsFunc(schemes,
		func(s string) bool { return strings.EqualFold(s, "Basic") }):
		return "wants a login by " + strings.Join(schemes, " or ") + " (" + said +
			"), and we know Basic only; it must allow Basic, or this machine without login"
	case p.login:
		return "refuses the user name or password in its address (" + said + ")"
	}
	return "wants a login (" + said + "); write user and password into its address, as in " +
		"http://user:password@host:port"
}

// knownSchemes are those of IANA's registry that proxies ask for. Others are not repeated: a proxy can write there what
// we sent.
var knownSchemes = []string{"Basic", "Bearer", "Digest", "HOBA", "Kerberos", "Mutual", "Negotiate", "NTLM",
	"SCRAM-SHA-1", "SCRAM-SHA-256"}

// challenges are the schemes that Proxy-Authenticate fields name.
func challenges(head []byte) []string {
	var schemes []string
	for line := range strings.SplitSeq(string(head), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if f := strings.Fields(value); strings.EqualFold(name, "Proxy-Authenticate") && len(f) > 0 && len(schemes) < 8 {
			schemes = append(schemes, schemeName(strings.TrimSuffix(f[0], ",")))
		}
	}
	return schemes
}

func schemeName(s string) string {
	i := slices.IndexFunc(knownSchemes, func(known string) bool { return strings.EqualFold(known, s) })
	if i < 0 {
		return "a scheme that is not ours"
	}
	return knownSchemes[i]
}
