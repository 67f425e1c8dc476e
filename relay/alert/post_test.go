package alert

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

// serve starts an HTTPS server and returns a hook for it, with a secret in its path, its query and its user.
func serve(t *testing.T, handler http.HandlerFunc) Hook {
	t.Helper()
	ca := testkit.NewCA(t)
	s := httptest.NewUnstartedServer(handler)
	s.TLS = ca.Leaf(testkit.LeafOptions{}).Server()
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return Hook{Name: "alert[1]", URL: s.URL + secretPath, RootCAs: ca.Pool}
}

const secretPath = "/services/T0SECRET/B0SECRET?token=QSECRET"

func TestPost(t *testing.T) {
	var got Document
	var header http.Header
	var path string
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		header, path = r.Header, r.URL.String()
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
	})
	if err := Post(t.Context(), h, "relay.example.com"); err != nil {
		t.Fatal(err)
	}
	if got.Event != Test || got.Host != "relay.example.com" || !strings.Contains(got.Text, "This is a test") {
		t.Errorf("%+v", got)
	}
	if path != secretPath || header.Get("Content-Type") != "application/json" || header.Get("Authorization") != "" {
		t.Errorf("%s %v", path, header)
	}
	h.URL = strings.Replace(h.URL, "https://", "https://anna:USERSECRET@", 1)
	if err := Post(t.Context(), h, "relay.example.com"); err != nil {
		t.Fatal(err)
	}
	if user, password, _ := (&http.Request{Header: header}).BasicAuth(); user != "anna" || password != "USERSECRET" {
		t.Errorf("%v", header)
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", h, h, &h, h); strings.Contains(shown, "SECRET") ||
		!strings.Contains(shown, "127.0.0.1") {
		t.Errorf("printed: %s", shown)
	}
}

func TestAnswers(t *testing.T) {
	in := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		code   int
		header string
		body   string
		want   string // "": taken
		final  bool
		least  time.Duration
	}{
		"ok":         {code: 200, body: "ok"},
		"no content": {code: 204},
		"broken":     {code: 500, body: "sorry", want: "500 Internal Server Error: sorry"},
		"busy":       {code: 429, header: "120", want: "429", least: 2 * time.Minute},
		"until":      {code: 503, header: in.UTC().Format(http.TimeFormat), want: "503", least: 58 * time.Minute},
		"odd":        {code: 503, header: "-5", want: "503"},
		"timeout":    {code: 408, want: "408"},
		"wrong":      {code: 404, body: "no_service", want: "404 Not Found: no_service", final: true},
		"forbidden":  {code: 403, want: "403", final: true},
		"echo": {code: 404,
			body: "The URL /services/T0SECRET/B0SECRET was not found, token QSECRET, user USERSECRET",
			want: "was not found", final: true},
		"escaped":    {code: 404, body: `{"path":"\/services\/T0SECRET\/B0SECRET"}`, want: "path", final: true},
		"other case": {code: 404, body: "t0secret B0SECRET qsecret", want: "404", final: true},
		"controls":   {code: 404, body: "a\x1b[2J\r\nlevel=INFO", want: "a?[2J level=INFO", final: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.WriteHeader(c.code)
				io.WriteString(w, c.body)
			})
			h.URL = strings.Replace(h.URL, "https://", "https://anna:USERSECRET@", 1)
			r := post(t.Context(), h, []byte("{}"))
			if (r.err == nil) != (c.want == "") || r.final != c.final || r.after < c.least ||
				r.after > c.least+2*time.Minute {
				t.Fatalf("%+v", r)
			}
			if r.err != nil && (!strings.Contains(r.err.Error(), c.want) ||
				strings.Contains(strings.ToUpper(r.err.Error()), "SECRET") != strings.Contains(r.err.Error(),
					"[secret]")) {
				t.Errorf("%v", r.err)
			}
			if r.err != nil {
				noSecret(t, r.err)
			}
		})
	}
}

// noSecret looks for parts of secretPath and of the user.
func noSecret(t *testing.T, err error) {
	t.Helper()
	text := strings.ToUpper(strings.ReplaceAll(err.Error(), "[secret]", ""))
	for _, part := range []string{"SECRET", "SERVICES", "TOKEN", "T0SE", "B0SE", "QSEC", "USERSEC"} {
		if strings.Contains(text, part) {
			t.Errorf("%q in %s", part, err)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var other atomic.Int32
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { other.Add(1) })
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{elsewhere.URL, secretPath, "http://127.0.0.1:%zz/T0SECRET"} {
			h := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", to)
				w.WriteHeader(code)
			})
			r := post(t.Context(), h, []byte("{}"))
			if r.err == nil || !r.final || !strings.Contains(r.err.Error(), "not followed") {
				t.Errorf("%d: %+v", code, r)
			}
			noSecret(t, r.err)
		}
	}
	if other.Load() != 0 {
		t.Error("somebody else has it")
	}
}

func TestTheServerMustBeProven(t *testing.T) {
	var asked atomic.Int32
	h := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	h.RootCAs = nil
	r := post(t.Context(), h, []byte("{}"))
	if r.err == nil || r.final || !strings.Contains(r.err.Error(), "certificate") {
		t.Errorf("an unknown authority: %+v", r)
	}
	noSecret(t, r.err)
	if asked.Load() != 0 {
		t.Error("the document was sent")
	}
}

func TestClearTextStaysOnThisMachine(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	if r := post(t.Context(), Hook{URL: s.URL + secretPath}, []byte("{}")); r.err != nil || asked.Load() != 1 {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{
		"http://192.0.2.1/T0SECRET", "http://hooks.example.com/T0SECRET", "ftp://127.0.0.1/", "127.0.0.1:80", "",
		"https://", "https:opaque",
		"https://h:bad/T0SECRET", "http://localhost.example.com/", "://", "https://h/%zzT0SECRET",
		"https://h:99999/T0SECRET", "https://h:0x1/T0SECRET", "https://h/T0SECRET ", " https://h/T0SECRET",
	} {
		if err := CheckURL(bad); err == nil {
			t.Errorf("%q is taken", bad)
		} else {
			noSecret(t, err)
		}
		if r := post(t.Context(), Hook{URL: bad}, []byte("{}")); r.err == nil || !r.final {
			t.Errorf("%q: %+v", bad, r)
		}
	}
	for _, good := range []string{hookURL, "https://ntfy.example.com/your-topic?tpl=1&t={{.event}}&m={{.text}}",
		"http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost/", "https://user:pass@h/"} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	if err := onlyLoopback("tcp", "192.0.2.1:80", nil); err == nil { // what localhost may resolve to
		t.Error("localhost may lead anywhere")
	}
}

func TestWhatDoesNotSpeakHTTP(t *testing.T) {
	ca := testkit.NewCA(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", ca.Leaf(testkit.LeafOptions{}).Server())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			c.Write(b[:n]) // an echo has the whole request in it
			c.Close()
		}
	}()
	r := post(t.Context(), Hook{URL: "https://" + l.Addr().String() + secretPath, RootCAs: ca.Pool}, []byte("{}"))
	if r.err == nil || r.final || !strings.Contains(r.err.Error(), "does not speak HTTP") {
		t.Errorf("%+v", r)
	}
	noSecret(t, r.err)
	address := l.Addr().String()
	l.Close()
	<-done
	r = post(t.Context(), Hook{URL: "https://" + address + secretPath, RootCAs: ca.Pool}, []byte("{}"))
	if r.err == nil || r.final || !strings.Contains(r.err.Error(), "refused") {
		t.Errorf("nobody there: %+v", r)
	}
	noSecret(t, r.err)
}

// Hooks that stop at any point end after postTime; what they say is bounded.
func TestStalledHooks(t *testing.T) {
	ca := testkit.NewCA(t)
	conf := ca.Leaf(testkit.LeafOptions{}).Server()
	for name, serve := range map[string]func(net.Conn){
		"never reads": func(net.Conn) {},
		"no answer": func(c net.Conn) {
			s := tls.Server(c, conf)
			io.Copy(io.Discard, s)
		},
		"half an answer": func(c net.Conn) {
			s := tls.Server(c, conf)
			io.WriteString(s, "HTTP/1.1 200 OK\r\nX-")
			io.Copy(io.Discard, s)
		},
		"a refusal without an end": func(c net.Conn) {
			s := tls.Server(c, conf)
			s.Read(make([]byte, 4096))
			io.WriteString(s, "HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nT0SEC")
			io.Copy(io.Discard, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var theirs net.Conn
				h := Hook{URL: "https://localhost" + secretPath, RootCAs: ca.Pool,
					dial: func(context.Context, string, string) (net.Conn, error) {
						var ours net.Conn
						ours, theirs = net.Pipe()
						go serve(theirs)
						return ours, nil
					}}
				began := time.Now()
				r := post(t.Context(), h, []byte("{}"))
				if took := time.Since(began); r.err == nil || r.final || took != postTime {
					t.Errorf("after %s: %+v", took, r)
				}
				noSecret(t, r.err)
				theirs.Close()
			})
		})
	}
}

func TestEndlessAnswersAreCut(t *testing.T) {
	for _, code := range []int{200, 500} {
		h := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("more ", 1000)); err != nil {
					return
				}
			}
		})
		r := post(t.Context(), h, []byte("{}"))
		if (r.err == nil) != (code == 200) || r.err != nil && len(r.err.Error()) > 2*maxReason {
			t.Errorf("%+v", r)
		}
	}
}

// A body that is cut may end with half a secret, which nobody would find in it.
func TestACutReasonHasNoHalfSecret(t *testing.T) {
	u, err := url.Parse("https://hooks.example.com/" + strings.Repeat("LONGSECRET", 100))
	if err != nil {
		t.Fatal(err)
	}
	endless := strings.NewReader("no such path: " + strings.Repeat(u.Path, maxBody/len(u.Path)+1))
	if got := reason(u, endless); strings.Contains(got, "LONG") {
		t.Errorf("%q", got)
	}
}

func FuzzScrub(f *testing.F) {
	f.Add("not found: /services/T0SECRET/B0SECRET?token=QSECRET")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse("https://anna:USERSECRET@hooks.example.com" + secretPath)
		if err != nil {
			t.Fatal(err)
		}
		got := scrub(u, text+u.String()+text)
		for _, piece := range []string{"USERSECRET", "T0SECRET", "B0SECRET", "QSECRET", "/services"} {
			if indexFold(got, piece) >= 0 {
				t.Errorf("%q in %q", piece, got)
			}
		}
	})
}
