package relay

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"postern/admin/access"
	"postern/operate"
)

// machineOwner is the command line.
var machineOwner = operate.Actor{Name: "root", Channel: operate.CommandLine}

// invited is what the command line does beside the daemon: it makes an admin's link.
func (r *rig) invited(name string) (*access.Access, access.Link) {
	r.t.Helper()
	c, err := r.load()
	if err != nil {
		r.t.Fatal(err)
	}
	beside, err := NewAccess(r.t.Context(), c, r.store(), slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	link, err := beside.Users.Invite(r.t.Context(), machineOwner, name, operate.Admin)
	if err != nil {
		r.t.Fatal(err)
	}
	return beside, link
}

// The daemon serves console and API by the certificate of [tls]: from the link to the first page and the API, while
// health and metrics ask nobody who they are.
func TestConsoleOfTheDaemon(t *testing.T) {
	r := startWithAdmin(t, "address = \":0\"\ntls = true")
	beside, link := r.invited("anna")
	token := link.URL[strings.LastIndex(link.URL, "/")+1:]
	i, err := beside.Invitations.Get(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	code, err := totp.GenerateCode(i.Secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := beside.Tokens.Add(t.Context(), machineOwner, access.NewToken{Name: "mon", Scopes: operate.Scopes[:1]})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots,
		ServerName: "relay.example.com"}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	_, port, _ := strings.Cut(r.server.admin.Addr().String(), "]:")
	ask := func(path string, form url.Values, status int, says string, header ...string) *http.Response {
		t.Helper()
		method, body := http.MethodGet, ""
		if form != nil {
			method, body = http.MethodPost, form.Encode()
		}
		address := "https://127.0.0.1:" + port + path
		req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "relay.example.com"
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for n := 0; n+1 < len(header); n += 2 {
			req.Header.Set(header[n], header[n+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status || !strings.Contains(string(text), says) {
			t.Errorf("%s %s: %d, want %d and %q:\n%s", method, path, resp.StatusCode, status, says, text)
		}
		return resp
	}
	ask("/healthz", nil, 200, "ok")
	ask("/metrics", nil, 200, "postern_")
	ask("/", nil, 303, "")
	ask("/api/v1/openapi.json", nil, 401, "session")
	ask("/api/v1/openapi.json", nil, 200, `"openapi":`, "Authorization", "Bearer "+key)
	in := ask(access.InvitePath+token, url.Values{"password": {"correct horse battery"},
		"repeat": {"correct horse battery"}, "code": {code}}, 303, "")
	var cookie string
	for _, each := range in.Cookies() {
		if each.Name == "__Host-postern" && each.Secure && each.HttpOnly {
			cookie = each.Name + "=" + each.Value
		}
	}
	if cookie == "" {
		t.Fatalf("no cookie of a session, but %v", in.Cookies())
	}
	ask("/", nil, 200, "Mail can leave", "Cookie", cookie)
	ask("/api/v1/openapi.json", nil, 200, `"openapi":`, "Cookie", cookie)
	ask("/people", nil, 200, "anna", "Cookie", cookie)
}
