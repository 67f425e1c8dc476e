package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/relay/fakeprovider"
)

const (
	demoMicrosoft = "microsoft365"
	demoTenant    = "contoso.example"
	demoClient    = "6731de76-14a6-49ae-97bc-6eba6914391e"
	demoScope     = "https://outlook.office365.com/.default"
)

// fakeMicrosoft is the provider of the demonstration: a login service and a submission server that takes its tokens
// only.
type fakeMicrosoft struct {
	login *fakeprovider.OAuth
	web   *fakeprovider.Running
	smtp  *fakeprovider.SMTP
	port  int
}

func (f *fakeMicrosoft) start(conf *tls.Config, secret string) (err error) {
	f.login = fakeprovider.NewOAuth(fakeprovider.OAuthOptions{Microsoft: true})
	f.login.AddClient(fakeprovider.Client{ID: demoClient, Secret: secret, Scopes: []string{demoScope}})
	if f.web, err = f.login.Listen(conf); err != nil {
		return err
	}
	f.smtp = fakeprovider.NewSMTP(fakeprovider.SMTPOptions{TLS: conf, Valid: f.login.Valid, Scope: demoScope,
		Hostname: "smtp.office365.fake"})
	f.port, err = f.smtp.Listen()
	return err
}

func (f *fakeMicrosoft) close() {
	if f.smtp != nil {
		f.smtp.Close()
	}
	if f.web != nil {
		_ = f.web.Close()
	}
}

const demoProvider = `[[policy]]                            # the application may be any mailbox, so say who may be whom
senders = ["{login}"]

[[upstream]]
name = "microsoft365"
host = "127.0.0.1"
port = %d
ca_file = "upstream-ca.pem"
username = "office@example.com"       # for senders without a mailbox
max_connections = 3
rate = ["30 messages/minute"]
dkim = "skip"                         # Exchange signs itself, and breaks a signature made before

[upstream.oauth]
provider = "microsoft"
flow = "client-credentials"
tenant = %q
client_id = %q
client_secret = "file:upstream-password"
identity = "sender"                   # log in as each message's own sender
token_url = "%s/%s/oauth2/v2.0/token"
`

func (f *fakeMicrosoft) upstreamConfig() string {
	return fmt.Sprintf(demoProvider, f.port, demoTenant, demoClient, f.web.URL, demoTenant)
}

// startProvider starts the fake.
func (d *demo) startProvider(context.Context) error {
	conf, err := d.prepare()
	if err != nil {
		return err
	}
	if err := d.provider.start(conf, d.secret); err != nil {
		return err
	}
	d.step("A fake Microsoft 365 listens on 127.0.0.1:%d, its login service on %s.", d.provider.port,
		d.provider.web.URL)
	d.step("    It takes 3 connections and 30 messages a minute for each mailbox, and access tokens instead of " +
		"passwords.")
	return nil
}

// tryPassword shows what such a provider does to a client that has a password: a printer of old.
func (d *demo) tryPassword(context.Context) error {
	roots, err := trusted(filepath.Join(d.dir, demoCA))
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.provider.port))
	c, err := smtp.DialStartTLS(address, &tls.Config{ServerName: "localhost", RootCAs: roots})
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Auth(sasl.NewLoginClient(demoLogin, "its password"))
	refusal, ok := errors.AsType[*smtp.SMTPError](err)
	if !ok {
		return fmt.Errorf("the provider should have refused a password: %w", err)
	}
	code := refusal.EnhancedCode
	d.step("A mail client that goes there with its password is refused:")
	d.step("    %d %d.%d.%d %s", refusal.Code, code[0], code[1], code[2], refusal.Message)
	return nil
}

// sendByToken sends two messages, so that the second shows what is kept of the first.
func (d *demo) sendByToken(ctx context.Context) error {
	for n, words := range []string{
		"The same client sent a message through the relay with STARTTLS and AUTH PLAIN. The relay answered after %s:",
		"It sent a second one, which needs no new login. The relay answered after %s:",
	} {
		if err := d.submit(words); err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
		arrivals, err := d.provider.smtp.Wait(bounded, n+1)
		cancel()
		if err != nil {
			return fmt.Errorf("wait for the message at the provider: %w", err)
		}
		if err := d.checkArrival(arrivals[n], n == 0); err != nil {
			return err
		}
	}
	if tokens, logins := d.provider.login.Requests("token"), d.provider.smtp.Counts().Logins; tokens != 1 ||
		logins != 1 {
		return fmt.Errorf("the relay asked for %d tokens and logged in %d times", tokens, logins)
	}
	d.step("For both the relay asked for one token and logged in once.")
	return nil
}

func (d *demo) checkArrival(got fakeprovider.Arrival, tell bool) error {
	if got.Mailbox != demoLogin || got.From != demoLogin || len(got.To) != 1 || got.To[0] != demoRcpt {
		return fmt.Errorf("the provider has it from <%s> to %q, by mailbox %s", got.From, got.To, got.Mailbox)
	}
	added, ok := bytes.CutSuffix(got.Data, []byte(demoMessage))
	if !ok {
		return errors.New("the message at the provider is not what was sent")
	}
	if tell {
		d.step("The relay got an access token as the application %s, and logged in with %s as %s, the sender, over %s.",
			demoClient[:8]+"…", got.Protocol, got.Mailbox, got.TLS)
		d.step("The provider has the message: from <%s> to <%s>. Every octet that was sent is there, and on top: %s.",
			got.From, got.To[0], strings.Join(fieldNames(added), ", "))
	}
	return nil
}

// showProvider prints what the provider takes until ctx ends.
func (d *demo) showProvider(ctx context.Context) error {
	for n := len(d.provider.smtp.Arrivals()); ; n++ {
		arrivals, err := d.provider.smtp.Wait(ctx, n+1)
		if err != nil {
			return err
		}
		m := arrivals[n]
		fmt.Fprintf(d.out, "%s  from <%s> to <%s>, %s, sent by mailbox %s\n", m.At.Format("15:04:05"), m.From,
			strings.Join(m.To, ", "), size(int64(len(m.Data))), m.Mailbox)
	}
}
