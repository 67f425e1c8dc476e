package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"sync/atomic"
	"time"

	"github.com/pquerna/otp/totp"

	"postern/admin/access"
	"postern/auth"
	"postern/operate"
	"postern/relay"
	relaystore "postern/relay/store"
)

const (
	demoConsole = "8587" // where it is free
	demoUser    = "demo"
)

// demoDoor is how the demonstration gets its visitor into the console with one click. It comes in as everybody does: it
// invites a user, accepts with a password and an authenticator's code, and logs in with them when its link is opened.
// The link is served here, beside the console, and hands the cookie of that session over, since cookies know no ports
// (RFC 6265 §8.5). So the product has no way in that only the demonstration needs.
type demoDoor struct {
	access   *access.Access
	store    *relaystore.Store
	server   *http.Server
	ended    chan struct{} // closed when server has ended
	link     string        // works once
	password string
	secret   string // of the authenticator
	token    string // in link
	used     atomic.Bool
}

// openConsole makes the user and the link.
func (d *demo) openConsole(ctx context.Context) (err error) {
	c := d.config
	door := &demoDoor{password: auth.GeneratePassword(), token: rand.Text()}
	if door.store, err = openStoreOf(ctx, c); err != nil {
		return err
	}
	d.door = door
	if door.access, err = relay.NewAccess(ctx, c, door.store, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if err := door.join(ctx); err != nil {
		return fmt.Errorf("a user of the console: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	door.link = "http://localhost:" + port + "/" + door.token
	door.server = &http.Server{Handler: door, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelWarn)}
	door.ended = make(chan struct{})
	go func() {
		defer close(door.ended)
		_ = door.server.Serve(l) // until close
	}()
	return nil
}

// join does what somebody does who was sent a link.
func (d *demoDoor) join(ctx context.Context) error {
	link, err := d.access.Users.Invite(ctx, me(), demoUser, operate.Admin)
	if err != nil {
		return err
	}
	u, err := url.Parse(link.URL)
	if err != nil {
		return err
	}
	token := path.Base(u.Path)
	i, err := d.access.Invitations.Get(ctx, token)
	if err != nil {
		return err
	}
	d.secret = i.Secret
	code, err := totp.GenerateCode(d.secret, time.Now())
	if err != nil {
		return err
	}
	_, err = d.access.Invitations.Accept(ctx, token, access.Acceptance{Password: d.password, Code: code}, "")
	return err
}

// enter logs in. The code of this half minute may be used already, the next one is taken too.
func (d *demoDoor) enter(ctx context.Context, client string) (cookie string, err error) {
	for _, at := range []time.Time{time.Now(), time.Now().Add(30 * time.Second)} {
		var code string
		if code, err = totp.GenerateCode(d.secret, at); err != nil {
			return "", err
		}
		who := access.Credentials{Name: demoUser, Password: d.password, Code: code}
		cookie, err = d.access.Logins.Login(ctx, who, client)
		if access.ReasonOf(err) != access.ReasonWrong {
			break
		}
	}
	return cookie, err
}

// ServeHTTP opens the console for whoever has the link, once.
func (d *demoDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	switch {
	case r.Method != http.MethodGet || subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte("/"+d.token)) != 1:
		http.NotFound(w, r)
		return
	case d.used.Swap(true):
		http.Error(w, "This link was used already. Log in with what the demo printed beside it.", http.StatusGone)
		return
	}
	cookie, err := d.enter(r.Context(), access.ClientOf(r))
	if err != nil {
		http.Error(w, "The demo cannot log in: "+err.Error(), http.StatusInternalServerError)
		return
	}
	access.SetSession(w, r, cookie)
	http.Redirect(w, r, d.access.URL().String(), http.StatusSeeOther)
}

// printConsole says how to come in.
func printConsole(w io.Writer, door *demoDoor) {
	fmt.Fprintf(w, `
Look at the console in a browser on this machine. This link logs in, once:

  %s

Afterwards it is %s, name %s, password %s, and the code of an
authenticator app with the key %s.
`, door.link, door.access.URL(), demoUser, door.password, door.secret)
}

// close ends it.
func (d *demoDoor) close() {
	if d.server != nil {
		d.server.Close()
		<-d.ended
	}
	d.store.Close()
}

// demoFixed is demoAddress with a port that is known beforehand: for what links to it, or is another process's.
func demoFixed(port string) (string, error) {
	address := demoAddress(port)
	if _, port, _ := net.SplitHostPort(address); port != "0" {
		return address, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
