package relay

import (
	"slices"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/trace"
)

// The key proxy is the way of mail; the environment's proxies are for HTTPS.
func TestUpstreamThroughProxy(t *testing.T) {
	for _, scheme := range []string{"http://", "socks5://"} {
		proxy := &testkit.Proxy{User: "scott", Password: "tiger"}
		at, err := proxy.Listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(proxy.Close)
		t.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
		t.Setenv("ALL_PROXY", "http://127.0.0.1:9")
		p := newProvider(t)
		proxy.To = p.address
		r := newRig(t, p, "upstream:proxy = \""+scheme+"scott:tiger@"+at+"\"")
		if _, err := r.send(rigLogin, []string{"bob@example.net"},
			"From: <"+rigLogin+">\nSubject: x\n\nhello\n"); err != nil {
			t.Fatal(err)
		}
		if asked := proxy.Asked(); p.count() != 1 || !slices.Equal(asked, []string{p.address}) {
			t.Errorf("%s: %d messages, asked for %v, not %s", scheme, p.count(), asked, p.address)
		}
		r.close()
		if strings.Contains(r.log.String(), "tiger") {
			t.Error("the proxy's password is in the log")
		}
	}
}

// What the proxy refuses is told as the proxy's, and the mail waits.
func TestProxyRefusalIsTold(t *testing.T) {
	proxy := &testkit.Proxy{Answer: "HTTP/1.1 403 Forbidden\r\n\r\n"}
	at, err := proxy.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	r := newRig(t, newProvider(t), "upstream:proxy = \"http://scott:tiger@"+at+"\"")
	reply, err := r.send(rigLogin, []string{"bob@example.net"}, "From: <"+rigLogin+">\nSubject: x\n\nhello\n")
	if err != nil || !strings.Contains(reply, "queued") {
		t.Fatalf("%q, %v", reply, err)
	}
	e := r.events(trace.Deferred)[0]
	if text := e.Reply.Text; !strings.Contains(text, "the proxy http://"+at+" does not let us connect to 127.0.0.1:") ||
		strings.Contains(text, "tiger") {
		t.Errorf("the trace says %s", e.Reply)
	}
}
