// Command load sends numbered messages to a submission server and proves, with the sink behind it, that none was lost
// or duplicated.
//
//	go run ./bench/cmd/load --addr 127.0.0.1:587 --login ann --count 10000 --check http://127.0.0.1:8025
//
// It reads the password from the environment variable LOAD_PASSWORD. Exit status: 0 done, 1 messages were refused, lost
// or duplicated, 2 wrong usage.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"postern/bench/ledger"
	"postern/bench/load"
)

type options struct {
	config load.Config
	mode   string
	to     string
	caFile string
	skip   bool
	idle   int
	report string
	check  string
	wait   time.Duration
}

func parse(args []string) (*options, error) {
	o := &options{}
	c := &o.config
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.StringVar(&c.Addr, "addr", "127.0.0.1:587", "server, `host:port`")
	f.StringVar(&o.mode, "tls", "starttls", "starttls, implicit or none")
	f.StringVar(&o.caFile, "ca", "", "trust anchors, PEM `file`")
	f.BoolVar(&o.skip, "insecure", false, "do not verify the certificate")
	f.StringVar(&c.Login, "login", "", "AUTH PLAIN as this user; the password is in LOAD_PASSWORD")
	f.StringVar(&c.Run, "run", "", "name of the run in the messages (default: from the time)")
	f.StringVar(&c.From, "from", "bench@example.com", "reverse-path and author")
	f.StringVar(&o.to, "to", "sink@example.net", "forward-paths, separated by commas")
	f.IntVar(&c.Size, "size", 4096, "octets of a message")
	f.IntVar(&c.Connections, "connections", 1, "connections at once")
	f.IntVar(&c.PerConnection, "per-connection", 0, "messages on one connection; 0: all")
	f.IntVar(&c.Count, "count", 0, "messages")
	f.DurationVar(&c.Duration, "duration", 0, "begin no message after this time")
	f.BoolVar(&c.Chunking, "chunking", false, "BDAT in one flight instead of DATA")
	f.IntVar(&c.Sources, "sources", 0, "spread connections over this many loopback addresses")
	f.IntVar(&o.idle, "idle", 0, "open so many connections, log in and hold them for --duration")
	f.StringVar(&o.report, "report", "", "write the report, JSON, to this `file`")
	f.StringVar(&o.check, "check", "", "`URL` of the sink's control: ask it for the proof")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long the proof may take to hold")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	c.Mode, c.Password, c.To = load.TLSMode(o.mode), os.Getenv("LOAD_PASSWORD"), strings.Split(o.to, ",")
	c.Run = cmp.Or(c.Run, "load-"+time.Now().Format("150405.000"))
	return o, o.trust()
}

func (o *options) trust() error {
	host, _, _ := strings.Cut(o.config.Addr, ":")
	o.config.TLS = &tls.Config{ServerName: host, InsecureSkipVerify: o.skip}
	if o.caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(o.caFile)
	if err != nil {
		return err
	}
	o.config.TLS.RootCAs = x509.NewCertPool()
	if !o.config.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate in it", o.caFile)
	}
	return nil
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ok, err := o.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
	}
	if err != nil || !ok {
		cancel()
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) (bool, error) {
	if o.idle > 0 {
		return true, o.hold(ctx)
	}
	report, err := load.Run(ctx, o.config)
	if err != nil {
		return false, err
	}
	fmt.Printf("accepted %d, uncertain %d, refused %v, failures %v\n",
		report.Accepted.Len(), report.Uncertain.Len(), report.Refused, report.Failures)
	fmt.Printf("%.0f messages/s over %d connections; latency p50 %v, p99 %v, max %v\n", report.Rate(),
		report.Connections, report.Latency.Quantile(0.5), report.Latency.Quantile(0.99), report.Latency.Quantile(1))
	if o.report != "" {
		data, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(o.report, append(data, '\n'), 0o644); err != nil {
			return false, err
		}
	}
	ok := len(report.Refused) == 0 && len(report.Failures) == 0
	if o.check == "" {
		return ok, nil
	}
	proof, err := prove(ctx, o.check, report.Claim(), o.wait)
	if err != nil {
		return false, err
	}
	fmt.Printf("claimed %d, arrived %d, missing %d, duplicates %d, unclaimed %d, corrupt %d\n",
		proof.Claimed, proof.Arrived, proof.Missing, proof.Duplicates, proof.Unclaimed, proof.Corrupt)
	return ok && proof.OK(), nil
}

func (o *options) hold(ctx context.Context) error {
	if o.config.Duration <= 0 {
		return fmt.Errorf("--idle needs --duration")
	}
	held, err := load.Hold(ctx, o.config, o.idle)
	if err != nil {
		return err
	}
	defer held.Close()
	fmt.Printf("holding %d connections for %v\n", o.idle, o.config.Duration)
	select {
	case <-ctx.Done():
	case <-time.After(o.config.Duration):
	}
	fmt.Printf("%d still answer\n", held.Alive())
	return nil
}

// prove asks the sink until nothing is missing or the time is over.
func prove(ctx context.Context, url string, claim ledger.Claim, wait time.Duration) (ledger.Proof, error) {
	body, err := json.Marshal(claim)
	if err != nil {
		return ledger.Proof{}, err
	}
	for end := time.Now().Add(wait); ; {
		proof, err := ask(ctx, url, body)
		if err != nil || proof.Missing == 0 || time.Now().After(end) {
			return proof, err
		}
		select {
		case <-ctx.Done():
			return proof, nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, url string, body []byte) (ledger.Proof, error) {
	var proof ledger.Proof
	url = strings.TrimRight(url, "/") + "/check"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return proof, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return proof, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return proof, fmt.Errorf("sink: %s: %s", resp.Status, text)
	}
	return proof, json.NewDecoder(resp.Body).Decode(&proof)
}
