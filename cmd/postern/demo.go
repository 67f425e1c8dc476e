package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/spf13/cobra"

	"postern/auth"
	"postern/certs"
	"postern/operate"
	"postern/relay"
	"postern/relay/capture"
	"postern/relay/config"
	"postern/relay/sign"
)

const (
	demoDomain = "example.com"
	demoLogin  = "anna@example.com"
	demoRcpt   = "bob@example.net"
	demoPort   = "2587" // STARTTLS; where it is free, so that a mail client's settings survive a second demo
	// TLS from the first octet; a port for each, since tls = "auto" makes STARTTLS wait half a second
	demoTLS = "2465"

	demoCA     = "upstream-ca.pem" // files
	demoSecret = "upstream-password"
)

func (a *app) demoCommand() *cobra.Command {
	var once bool
	var provider string
	var nodes int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole path on loopback, without any configuration",
		Long: `Start a relay with a temporary directory, a self-signed certificate, an account and DKIM keys, and beside
it an upstream that keeps what it takes in memory. Send a real message through both over STARTTLS and AUTH, fetch it
back from the upstream, compare every octet, and verify its signatures. Then print a link that logs in to the
console, and keep running. Nothing leaves this machine.

With --provider microsoft365 the upstream is a fake of Exchange Online, which takes access tokens only: a client that
knows nothing but a password sends through it.

With --nodes 2 two nodes share a PostgreSQL that the demo starts for itself, if it is installed. One of them accepts a
message and is killed before it can deliver it; the other one delivers it.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := chooseDemo(provider, nodes)
			if err != nil {
				return usage(cmd, err)
			}
			d.out = cmd.OutOrStdout()
			defer d.close()
			if err := d.run(cmd.Context(), once); err != nil && cmd.Context().Err() == nil { // else by Ctrl-C
				return fmt.Errorf("demo: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&provider, "provider", "", "send through a fake of this provider: "+demoMicrosoft)
	cmd.Flags().IntVar(&nodes, "nodes", 1, "1, or 2 at one database, of which one is killed")
	cmd.Flags().BoolVar(&once, "once", false, "end with exit code 0 after the verified message")
	return cmd
}

// chooseDemo takes the flags that say what is shown.
func chooseDemo(provider string, nodes int) (*demo, error) {
	d := &demo{records: map[string]string{}}
	switch {
	case provider != "" && provider != demoMicrosoft:
		return nil, fmt.Errorf("--provider is %q; there is a fake of %s only", provider, demoMicrosoft)
	case nodes != 1 && nodes != 2:
		return nil, fmt.Errorf("--nodes is %d; there may be 1 or 2", nodes)
	case provider != "" && nodes == 2:
		return nil, errors.New("--provider and --nodes 2 are two demonstrations: choose one")
	case provider != "":
		d.provider = new(fakeMicrosoft)
	case nodes == 2:
		d.pair = newDemoPair(d)
	}
	return d, nil
}

// demo is one run of the demonstration.
type demo struct {
	out      io.Writer
	dir      string
	home     string // of the configuration, in dir
	upstream *capture.Server
	provider *fakeMicrosoft // instead of upstream
	server   *relay.Server
	pair     *demoPair // instead of server
	config   *config.Config
	door     *demoDoor         // nil: not yet
	password string            // of the account
	secret   string            // of the relay at the upstream
	roots    *x509.CertPool    // of the relay's own certificate
	address  string            // of the relay's listener for STARTTLS
	implicit string            // and of the one for TLS
	records  map[string]string // the DNS records that dkim add would ask to publish

	stop context.CancelFunc
	done chan error
}

func (d *demo) step(format string, args ...any) { fmt.Fprintf(d.out, "  "+format+"\n", args...) }

func (d *demo) run(ctx context.Context, once bool) error {
	title, steps, done := storyOf(d)
	fmt.Fprintf(d.out, "Postern demo: %s, all on this machine.\n\n", title)
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out)
	fmt.Fprintln(d.out, done)
	if once {
		return nil
	}
	if d.pair != nil {
		if err := d.pair.keep(ctx); err != nil {
			return err
		}
	}
	if err := d.openConsole(ctx); err != nil {
		return err
	}
	printConsole(d.out, d.door)
	d.printSettings()
	return d.show(ctx)
}

// storyOf is what is shown, step by step.
func storyOf(d *demo) (title string, steps []func(context.Context) error, done string) {
	switch {
	case d.provider != nil:
		return "a message from a mail client through the relay to an upstream",
			[]func(context.Context) error{d.startProvider, d.tryPassword, d.startRelay, d.sendByToken},
			"Done: a client with nothing but a password sent through a provider that takes no passwords."
	case d.pair != nil:
		return "two nodes at one database, of which one dies with a message that it has accepted",
			[]func(context.Context) error{d.pair.startDatabase, d.startUpstream, d.pair.startNodes, d.pair.loseNode,
				d.pair.takeOver},
			"Done: the message that node a had accepted came out of node b, as it was sent, completed and signed."
	}
	return "a message from a mail client through the relay to an upstream",
		[]func(context.Context) error{d.startUpstream, d.startRelay, d.sendAndVerify},
		"Done: the message came out of the upstream as it was sent, completed and signed."
}

// startUpstream starts the provider of this demonstration: STARTTLS and AUTH required.
func (d *demo) startUpstream(ctx context.Context) error {
	conf, err := d.prepare()
	if err != nil {
		return err
	}
	o := capture.Options{TLS: conf, Username: "relay", Password: d.secret}
	if d.pair != nil {
		o.Greylist = 1
	}
	if d.upstream, err = capture.Start(ctx, o); err != nil {
		return err
	}
	if d.pair != nil {
		d.step("An upstream listens on %s. It greylists: the first attempt is told to come again later.",
			d.upstream.Addr())
		return nil
	}
	d.step("An upstream listens on %s. It asks for STARTTLS and a login, and keeps mail in memory.", d.upstream.Addr())
	return nil
}

// prepare makes the directory, a certificate for the upstream and the secret that the relay has there.
func (d *demo) prepare() (conf *tls.Config, err error) {
	if d.dir, err = os.MkdirTemp("", "postern-demo-"); err != nil {
		return nil, err
	}
	d.home = d.dir
	pair, err := certs.SelfSigned([]string{"localhost", "127.0.0.1"}, time.Now())
	if err != nil {
		return nil, err
	}
	d.secret = auth.GeneratePassword()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair[0].Certificate[0]})
	for name, text := range map[string][]byte{demoCA: ca, demoSecret: []byte(d.secret)} {
		if err := writeNew(filepath.Join(d.dir, name), string(text)); err != nil {
			return nil, err
		}
	}
	return &tls.Config{Certificates: pair[:1], MinVersion: tls.VersionTLS12}, nil
}

const demoConfig = `hostname = "localhost"
data_dir = "data"

[[listener]]
address = %q
tls = "starttls"

[[listener]]
address = %q
tls = "implicit"

[admin]
address = %q

`

const demoUpstream = `[[upstream]]
name = "demo"
host = "127.0.0.1"
port = %s
ca_file = %q
username = "relay"
password = %q
`

// startRelay writes a configuration, makes an account and keys as the command line would, and starts.
func (d *demo) startRelay(ctx context.Context) error {
	upstream, err := d.upstreamConfig()
	if err != nil {
		return err
	}
	console, err := demoFixed(demoConsole)
	if err != nil {
		return err
	}
	text := fmt.Sprintf(demoConfig, demoAddress(demoPort), demoAddress(demoTLS), console) + upstream
	c, err := writeConfig(d.dir, text)
	if err != nil {
		return err
	}
	d.config = c
	if err := d.makeAccount(ctx, c); err != nil {
		return err
	}
	ready := make(chan struct{})
	d.server, err = relay.New(ctx, relay.Options{Config: c, Logger: slog.New(slog.DiscardHandler),
		Ready: func() { close(ready) }, Version: readBuild().Version, Poll: relay.Poll})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	d.stop, d.done = stop, make(chan error, 1)
	go func() { d.done <- d.server.Run(running) }()
	select {
	case <-ready:
	case err := <-d.done:
		d.done <- err
		return err
	}
	addresses := d.server.Addresses()
	d.address, d.implicit = addresses["submission"], addresses["submissions"]
	if d.provider == nil {
		d.step("The relay listens on %s for STARTTLS and on %s for TLS, and then wants a login. It signs for %s and "+
			"hands to the upstream.", d.address, d.implicit, demoDomain)
	} else {
		d.step("The relay listens on %s for STARTTLS and on %s for TLS, and then wants a login with a password. Its "+
			"upstream has [upstream.oauth].", d.address, d.implicit)
	}
	d.roots, err = trusted(filepath.Join(c.DataDir, "tls", "self-signed.crt"))
	return err
}

// writeConfig writes a configuration into a directory.
func writeConfig(dir, text string) (*config.Config, error) {
	path := filepath.Join(dir, "relay.toml")
	if err := writeNew(path, text); err != nil {
		return nil, err
	}
	return config.Load(path)
}

func (d *demo) upstreamConfig() (string, error) {
	if d.provider != nil {
		return d.provider.upstreamConfig(), nil
	}
	_, port, err := net.SplitHostPort(d.upstream.Addr())
	return fmt.Sprintf(demoUpstream, port, filepath.Join(d.dir, demoCA), "file:"+filepath.Join(d.dir, demoSecret)), err
}

// demoAddress prefers a port that stays the same from run to run.
func demoAddress(port string) string {
	address := net.JoinHostPort("127.0.0.1", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	l.Close()
	return address
}

// makeAccount does what `postern user add` and `postern dkim add --now` do.
func (d *demo) makeAccount(ctx context.Context, c *config.Config) error {
	s, err := openStoreOf(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	ops := operate.New(operate.Options{Config: func() *config.Config { return c }, Store: s})
	made, err := ops.Accounts.Add(ctx, me(), operate.NewAccount{Login: demoLogin,
		Senders: []string{"*@" + demoDomain}})
	if err != nil {
		return err
	}
	d.password = made.Password
	keys, err := ops.Keys.AddNow(ctx, me(), demoDomain, "", []string{sign.RSA2048, sign.Ed25519})
	if err != nil {
		return err
	}
	for _, k := range keys {
		if d.records[k.RecordName()], err = k.Record(); err != nil {
			return err
		}
	}
	return nil
}

func trusted(file string) (*x509.CertPool, error) {
	pemData, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pemData) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return roots, nil
}

// demoMessage lacks what a submission server adds, and has lines that test the transfer: dots and 8-bit
// text.
const demoMessage = "From: Anna <" + demoLogin + ">\r\n" +
	"To: Bob <" + demoRcpt + ">\r\n" +
	"Subject: Hello from the demo\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n" +
	"\r\n" +
	"Dear Bob,\r\n.\r\n..\r\ngr\u00fc\u00dfe aus der Demo.\r\n"

func (d *demo) sendAndVerify(ctx context.Context) error {
	if err := d.submit("A mail client sent a message with STARTTLS and AUTH PLAIN. The relay answered after " +
		"%s:"); err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	got, err := d.upstream.WaitMessage(bounded)
	if err != nil {
		return fmt.Errorf("wait for the message at the upstream: %w", err)
	}
	return compare(d, got)
}

// compare looks at what the upstream has.
func compare(d *demo, got capture.Message) error {
	d.step("The upstream has it: from <%s> to <%s>, logged in as %s over %s.", got.From,
		strings.Join(got.Recipients, ", "), got.Login, tls.VersionName(got.TLS.Version))
	added, ok := bytes.CutSuffix(got.Data, []byte(demoMessage))
	if !ok {
		return errors.New("the message at the upstream is not what was sent")
	}
	d.step("Every octet that was sent is there. The relay put these fields on top: %s.",
		strings.Join(fieldNames(added), ", "))
	return d.verify(got.Data)
}

// submit sends the message with an SMTP client that is not ours, and shows the last reply and how long it took.
func (d *demo) submit(words string) error {
	start := time.Now()
	c, err := smtp.DialStartTLS(d.address, &tls.Config{ServerName: "localhost", RootCAs: d.roots})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", demoLogin, d.password)); err != nil {
		return err
	}
	if err := c.Mail(demoLogin, &smtp.MailOptions{Body: smtp.Body8BitMIME}); err != nil {
		return err
	}
	if err := c.Rcpt(demoRcpt, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, demoMessage); err != nil {
		return err
	}
	resp, err := w.CloseWithResponse()
	if err != nil {
		return err
	}
	d.step(words, time.Since(start).Round(time.Millisecond))
	d.step("    250 %s", resp.StatusText)
	return c.Quit()
}

func fieldNames(header []byte) []string {
	var names []string
	for line := range strings.SplitSeq(string(header), "\r\n") {
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") &&
			!strings.HasPrefix(line, "\t") {
			names = append(names, name)
		}
	}
	return names
}

// verify checks the signatures with a DKIM implementation that is not ours, against the records that
// would stand in DNS.
func (d *demo) verify(message []byte) error {
	results, err := dkim.VerifyWithOptions(bytes.NewReader(message),
		&dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			if r, ok := d.records[name]; ok {
				return []string{r}, nil
			}
			return nil, fmt.Errorf("no record %s", name)
		}})
	if err != nil {
		return err
	}
	if len(results) != len(d.records) {
		return fmt.Errorf("the message has %d signatures, not %d", len(results), len(d.records))
	}
	for _, r := range results {
		if r.Err != nil {
			return fmt.Errorf("the signature of %s does not verify: %w", r.Domain, r.Err)
		}
	}
	d.step("Its %d DKIM signatures (RSA-2048 and Ed25519) of %s verify.", len(results), demoDomain)
	return nil
}

func (d *demo) close() {
	if d.door != nil {
		d.door.close()
	}
	if d.pair != nil {
		d.pair.close()
	}
	if d.stop != nil {
		d.stop()
		<-d.done
	}
	if d.upstream != nil {
		d.upstream.Close()
	}
	if d.provider != nil {
		d.provider.close()
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}
