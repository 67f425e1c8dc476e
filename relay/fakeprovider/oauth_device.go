package fakeprovider

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"time"
)

// device is one run of RFC 8628.
type device struct {
	userCode string
	client   string
	scopes   []string
	expires  time.Time
	interval time.Duration
	polled   time.Time
	polls    int
	identity string // who consented
	denied   bool
	used     bool
}

// ConsentDevice lets identity consent to the code that a person was shown; an empty identity denies. It reports whether
// there is such a code.
func (a *OAuth) ConsentDevice(userCode, identity string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.devices {
		if d.userCode == userCode && a.nowLocked().Before(d.expires) {
			d.identity, d.denied = identity, identity == ""
			return true
		}
	}
	return false
}

// deviceLocked is the device authorization endpoint (RFC 8628 §3.1).
func (a *OAuth) deviceLocked(r *http.Request) (map[string]any, *problem) {
	c, known := a.clients[r.PostForm.Get("client_id")]
	if !known {
		return nil, bad("unauthorized_client", 700016,
			"Application with identifier '%s' was not found in the directory 'Contoso'.", r.PostForm.Get("client_id"))
	}
	scopes, err := a.scopesLocked(c, r.PostForm)
	if err != nil {
		return nil, err
	}
	text := rand.Text()
	d := &device{userCode: text[:4] + "-" + text[4:8], client: c.ID, scopes: scopes,
		expires: a.nowLocked().Add(a.o.DeviceLife), interval: a.o.DeviceInterval, polled: a.nowLocked()}
	code := "dc." + rand.Text()
	a.devices[code] = d
	return map[string]any{
		"device_code": code, "user_code": d.userCode, "verification_uri": "https://login.example.com/device",
		"expires_in": int(a.o.DeviceLife / time.Second), "interval": int(d.interval / time.Second),
		"message": "To sign in, use a web browser to open the page https://login.example.com/device and enter " +
			"the code " + d.userCode,
	}, nil
}

// pollLocked is one poll (RFC 8628 §3.4, §3.5). Who polls faster than he was told is told to slow down, and held to it.
func (a *OAuth) pollLocked(c Client, f url.Values) (map[string]any, *problem) {
	now := a.nowLocked()
	d := a.devices[f.Get("device_code")]
	if d == nil || d.client != c.ID || d.used {
		return nil, bad("invalid_grant", 70000, "The device code is not known.")
	}
	if !now.Before(d.expires) {
		return nil, bad("expired_token", 70020,
			"The provided value for the input parameter 'device_code' is not valid. This device code has expired.")
	}
	early := now.Sub(d.polled) < d.interval
	d.polled = now
	d.polls++
	switch {
	case early:
		d.interval += 5 * time.Second
		a.counts["slow_down"]++
		return nil, bad("slow_down", 0, "Polling too frequently.")
	case d.denied:
		return nil, bad("access_denied", 65004, "User declined to consent to access the app.")
	case d.identity == "" && a.o.Consenter != "" && d.polls > a.o.DevicePolls:
		d.identity = a.o.Consenter
	}
	if d.identity == "" {
		return nil, bad("authorization_pending", 70016,
			"OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	}
	d.used = true
	return a.firstLocked(c, d.identity, d.scopes), nil
}
