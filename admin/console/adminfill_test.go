package console

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/stats"
	"postern/relay/store"
	"postern/relay/trace"
)

// officeConfig is what an office has: Microsoft 365 and Amazon SES, a hook, and a secret in it.
const officeConfig = `hostname = "relay.example.com"
data_dir = "data"

[store]
history = "60d"

[[listener]]
address = ":587"

[[listener]]
address = ":465"
tls = "implicit"

[[upstream]]
name = "office"
provider = "microsoft365"
username = "relay@example.com"
password = "hunter2-very-secret"

[[alert]]
url = "https://hooks.example.com/T000/path-that-is-secret"
`

// brokenEnd are mistakes that the doctor finds in the file.
const brokenEnd = "ca = 1\n" +
	"[[upstream]]\nname = \"office\"\nhots = \"smtp.example.com\"\n[delivery]\nexpire = \"2 days\"\n"

// office gives a rig that configuration, and a world of DNS.
func office(t *testing.T) func(*rig) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.toml")
	if err := os.WriteFile(file, []byte(officeConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	// The doctor reads the file again, and looks at nothing else where it is wrong: no test asks the world.
	if err := os.WriteFile(file, []byte(officeConfig+brokenEnd), 0o600); err != nil {
		t.Fatal(err)
	}
	world := dnstest.Start(t, "com 300 SOA a.com. b.com. 1 7200 600 86400 300\n"+dnstest.Zone("example.com")+
		"example.com 300 TXT \"v=spf1 include:spf.protection.outlook.com -all\"\n"+dnstest.Zone("outlook.com")+
		"spf.protection.outlook.com 300 TXT \"v=spf1 ip4:203.0.113.0/24 -all\"\n"+
		"_dmarc.example.com 300 TXT \"v=DMARC1; p=none; <script>alert(1)</script>\"\n"+
		"example.com 300 MX 10 mx.example.com.\nmx.example.com 300 A 192.0.2.10")
	return func(r *rig) {
		r.config = c
		r.look = operate.LookOptions{Resolver: &dnscheck.Resolver{Servers: []netip.AddrPort{world.Resolver},
			AuthorityPort: world.Port}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}
	}
}

// accounts adds n logins; every fourth is a device, every tenth is locked.
func (r *rig) accounts(n int) {
	r.t.Helper()
	for i := range n {
		u := auth.User{Login: fmt.Sprintf("person%05d@example.com", i), Created: r.now.Add(-90 * 24 * time.Hour),
			Changed: r.now.Add(-80 * 24 * time.Hour), Generated: true, Note: []string{"", "Accounting"}[i%2],
			Senders: []string{fmt.Sprintf("person%05d@example.com", i)}}
		if i%4 == 1 {
			u.Login, u.Device = fmt.Sprintf("scanner-%05d", i), true
			u.Senders, u.Groups = []string{"scans@example.com", "*@scans.example.com"}, []string{"devices"}
			u.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.31/32"), netip.MustParsePrefix("10.9.0.0/16")}
			u.Note = "Second floor, beside the kitchen. Toner: cupboard 3."
		}
		if i%10 == 3 {
			u.Locked, u.LockReason = true, "over the 200 messages/1h limit"
		}
		r.must(r.store.AddUser(r.t.Context(), u))
		if i < 60 {
			r.tell(trace.Event{Time: r.now.Add(-time.Duration(i+3) * time.Hour), Kind: trace.Accepted, Login: u.Login,
				ID: fmt.Sprint("acc", i), Session: fmt.Sprint("as", i), Client: "10.0.0.31", Listener: "submission",
				From: "scans@example.com", To: "ben@gmail.com", Reply: mail.R(250, "2.0.0", "queued as acc%d", i)})
		}
		if i%3 == 1 && i < 60 {
			r.tell(trace.Event{Time: r.now.Add(-time.Duration(i+1) * time.Hour), Kind: trace.AuthFail, Login: u.Login,
				Session: fmt.Sprint("af", i), Client: "203.0.113.77", Listener: "submission",
				Reply: mail.R(535, "5.7.8", "login or password not accepted")})
		}
	}
}

// alerts records n alerts, the last two of them open.
func (r *rig) alerts(n int) {
	r.t.Helper()
	events := []string{"upstream-paused", "queue-age", "secret-expiry", "login-locked"}
	for i := range n {
		a := store.Alert{Event: events[i%4], Subject: "office365", Since: r.now.Add(time.Duration(i-n) * time.Hour),
			Summary: "The provider does not take our mail because of the account: \"535 5.7.139 Authentication " +
				"unsuccessful\". Nothing is lost: the mail waits, or takes the next upstream of its route, and this " +
				"one is tried again at 13:12. SMTP AUTH is switched off for the mailbox office@example.com. What " +
				"to do: Microsoft 365 admin centre > Users > Active users > office@example.com > Mail > Manage " +
				"email apps > tick Authenticated SMTP. Wait up to an hour, then test again.",
			Details: map[string]string{"identity": "office@example.com",
				"reply": "535 5.7.139 Authentication unsuccessful"}}
		r.must(r.store.SaveAlert(r.t.Context(), a))
		if i < n-2 {
			a.Ended, a.Over = a.Since.Add(40*time.Minute), "It works again: mail flows."
			r.must(r.store.SaveAlert(r.t.Context(), a))
		}
	}
}

// audits records n entries.
func (r *rig) audits(n int) {
	r.t.Helper()
	outcomes := []string{store.AuditDone, store.AuditDone, store.AuditRefused, "login scanner-2 exists already"}
	for i := range n {
		r.must(r.store.AppendAudit(r.t.Context(), store.AuditEntry{Time: r.now.Add(time.Duration(i-n) * time.Minute),
			Actor: []string{"anna", "ben"}[i%2], Channel: "console", Client: "192.0.2.7",
			Operation: []string{"user add", "queue delete", "user lock"}[i%3], Subject: "scanner-2", Detail: "device",
			Outcome: outcomes[i%4]}))
	}
}

// lockOut locks an address for all logins.
func (r *rig) lockOut(network string) {
	r.t.Helper()
	r.must(r.store.LoginLockout().Save(r.t.Context(), r.now, auth.Unsaved{Locks: []auth.Lock{{
		Client: netip.MustParsePrefix(network), Until: r.now.Add(10 * time.Minute), Failures: 10}}}))
}

// counted adds sums of n names for the last hours; one name is hostile.
func (r *rig) counted(n int) {
	r.t.Helper()
	var all []stats.Sum
	for i := range n {
		for hour := range 40 {
			c := stats.Counts{Messages: int64((i+3)*(hour%9+1)) % 40, Recipients: 5, Octets: 400_000,
				Delivered:       int64(i*hour) % 37,
				RecipientFaults: int64(hour % 5 / 4), Deferrals: int64(i % 3), LoginsRefused: int64(i % 2)}
			c.Times.Observe(time.Duration(i+1) * 700 * time.Millisecond)
			for by, key := range map[stats.Dimension]string{stats.Login: fmt.Sprintf("person%03d", i),
				stats.Listener: "submission",
				stats.Upstream: "office365", stats.SenderDomain: "example.com",
				stats.RecipientDomain: []string{"gmail.com", hostile}[i%2]} {
				all = append(all, stats.Sum{Cell: stats.Cell{Hour: r.now.Unix()/3600 - int64(hour*4), By: by,
					Key: stats.Key(key)},
					Counts: c})
			}
		}
	}
	r.must(r.store.AddStatisticsNow(r.t.Context(), all))
}
