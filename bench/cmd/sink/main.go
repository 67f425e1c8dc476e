// Command sink is an upstream that takes mail and counts it. It listens on loopback unless told
// otherwise, makes a certificate of its own unless given one, and prints what a relay needs to use it.
//
//	go run ./bench/cmd/sink --addr 127.0.0.1:2525 --control 127.0.0.1:8025 --user relay --ca-out ca.pem
//
// The password is read from the environment variable SINK_PASSWORD. GET /status and /ledger at the
// control address show what came; POST /check compares it with what a load generator was promised.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"postern/bench/sink"
	"postern/internal/testkit/pki"
)

type options struct {
	sink                     sink.Options
	control, ledger          string
	certFile, keyFile, caOut string
}

func parse(args []string) (*options, error) {
	o := &options{}
	s := &o.sink
	var mode, without, faults string
	f := flag.NewFlagSet("sink", flag.ContinueOnError)
	f.StringVar(&s.Addr, "addr", "127.0.0.1:2525", "where to listen, `host:port`")
	f.StringVar(&mode, "tls", "starttls", "starttls, implicit or none")
	f.StringVar(&o.certFile, "cert", "", "certificate, PEM `file` (default: one is made)")
	f.StringVar(&o.keyFile, "key", "", "its key, PEM `file`")
	f.StringVar(&o.caOut, "ca-out", "", "write the trust anchor of the certificate that was made to this `file`")
	f.StringVar(&s.Username, "user", "", "require AUTH as this user; the password is in SINK_PASSWORD")
	f.Int64Var(&s.Size, "size", 0, "largest message in octets; -1: SIZE is not offered")
	f.StringVar(&without, "without", "", "extensions not to offer, separated by commas: CHUNKING,PIPELINING …")
	f.DurationVar(&s.Delay, "delay", 0, "hold back each flight of replies")
	f.StringVar(&faults, "faults", "",
		`what goes wrong, JSON: [{"stage":"rcpt","reply":"450 4.2.0 busy","probability":0.1}]`)
	f.Uint64Var(&s.Seed, "seed", 1, "of the dice for faults")
	f.StringVar(&o.control, "control", "", "serve the control interface here, `host:port`")
	f.StringVar(&o.ledger, "ledger", "", "write the ledger, JSON lines, to this `file` at the end")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	s.Mode, s.Password = sink.TLSMode(mode), os.Getenv("SINK_PASSWORD")
	if without != "" {
		s.Without = strings.Split(strings.ToUpper(without), ",")
	}
	if faults != "" {
		if err := json.Unmarshal([]byte(faults), &s.Faults); err != nil {
			return nil, fmt.Errorf("--faults: %w", err)
		}
	}
	if s.Username != "" && s.Password == "" {
		return nil, errors.New("--user needs a password in SINK_PASSWORD")
	}
	return o, o.certificate()
}

func (o *options) certificate() error {
	switch {
	case o.sink.Mode == sink.None:
		return nil
	case o.certFile != "":
		cert, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		o.sink.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		return err
	}
	ca, err := pki.NewCA()
	if err != nil {
		return err
	}
	leaf, err := ca.Leaf(pki.Options{Names: []string{"localhost", "127.0.0.1", "::1", "sink.example.com"}})
	if err != nil {
		return err
	}
	o.sink.TLS = leaf.Server()
	if o.caOut == "" {
		return nil
	}
	return os.WriteFile(o.caOut, ca.PEM, 0o644)
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sink:", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sink:", err)
		cancel()
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) error {
	s, err := sink.Start(ctx, o.sink)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Printf("sink listens on %s, tls %s\n", s.Addr(), o.sink.Mode)
	group, ctx := errgroup.WithContext(ctx)
	if o.control != "" {
		l, err := net.Listen("tcp", o.control)
		if err != nil {
			return err
		}
		fmt.Printf("control on http://%s\n", l.Addr())
		group.Go(func() error { return s.ServeControl(ctx, l) })
	}
	group.Go(func() error { <-ctx.Done(); return nil })
	if err := group.Wait(); err != nil {
		return err
	}
	s.Close()
	return o.finish(s)
}

func (o *options) finish(s *sink.Sink) error {
	for _, r := range s.Ledger().Summaries() {
		fmt.Printf("run %s: %d messages, %d deliveries, %d repeated, %d corrupt\n", r.Run, r.Messages, r.Deliveries,
			r.Repeated, r.Corrupt)
	}
	if o.ledger == "" {
		return nil
	}
	f, err := os.Create(o.ledger)
	if err != nil {
		return err
	}
	_, err = s.Ledger().WriteTo(f)
	return errors.Join(err, f.Close())
}
