package access

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"postern/operate"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}

// TestNobodyIsTrustedByItself: without the setting no header is believed, not even from this machine.
func TestNobodyIsTrustedByItself(t *testing.T) {
	r := newRig(t)
	q := httptest.NewRequest(http.MethodGet, "/", nil)
	q.RemoteAddr = "127.0.0.1:4711"
	q.Header.Set("X-Forwarded-For", "192.0.2.7")
	r.Locate(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		if got := ClientOf(q); got != "127.0.0.1" {
			t.Errorf("it is taken for %s", got)
		}
	})).ServeHTTP(httptest.NewRecorder(), q)
}

// TestNetworksOfTokensBehindAProxy: they mean the client, not the proxy.
func TestNetworksOfTokensBehindAProxy(t *testing.T) {
	r := newRig(t, func(o *Options) { o.TrustedProxies = proxies })
	token, err := r.Tokens.Add(t.Context(), owner, NewToken{Name: "x", Scopes: operate.Scopes,
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	h := r.Locate(r.Authenticate(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		who, _ := operate.ActorOf(q.Context())
		_, _ = w.Write([]byte(who.Client))
	})))
	for from, want := range map[string]int{"192.0.2.7": http.StatusOK, "198.51.100.1": http.StatusForbidden,
		"": http.StatusForbidden} {
		q := httptest.NewRequest(http.MethodGet, "/api/v1/queue", nil)
		q.RemoteAddr = "10.0.0.1:4711"
		q.Header.Set("X-Forwarded-For", from)
		q.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		if w.Code != want || want == http.StatusOK && w.Body.String() != from {
			t.Errorf("from %q: %d %s, want %d", from, w.Code, w.Body, want)
		}
	}
}
