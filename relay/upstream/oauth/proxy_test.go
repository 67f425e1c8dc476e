package oauth

import (
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream/via"
)

// A proxy that does not let us through to the token endpoint is named, and passes: nothing is wrong with the
// application.
func TestProxyThatRefuses(t *testing.T) {
	for name, proxy := range map[string]*testkit.Proxy{
		"407": {User: "scott", Password: "tiger"},
		"403": {Answer: "HTTP/1.1 403 Forbidden\r\n\r\n<html>no</html>"},
		"502": {Answer: "HTTP/1.1 502 Bad Gateway\r\n\r\n"},
	} {
		at, err := proxy.Listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(proxy.Close)
		p, err := via.Parse("http://" + at)
		if err != nil {
			t.Fatal(err)
		}
		o := appOptions(confidential(fakeprovider.OAuthOptions{}))
		o.Transport, o.Dial = nil, p.Dial
		_, err = newSource(t, o).Token(t.Context(), mailbox)
		e := wantFault(t, err, mail.BackPressure, codeUnreachable)
		if !strings.Contains(e.Cause, "login.microsoftonline.com cannot be reached: the proxy http://"+at) ||
			!strings.Contains(e.Cause, "key proxy") {
			t.Errorf("%s: %s", name, e.Cause)
		}
	}
}
