//go:build unix

// Command run measures Postern beside Postfix, if installed, and prints the figures that the README quotes. `make
// bench` calls it. Everything runs on loopback in a temporary directory and ends with the command. Exit status: 0 all
// targets met, 1 a target was missed or a run failed, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"postern/bench/run"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ok, err := measure(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || !ok {
		cancel()
		os.Exit(1)
	}
}

// build builds what is measured. Without what OpenSSL takes it is left out.
func build(ctx context.Context, dir string, o *run.Options) (err error) {
	if o.Binary, err = run.Build(ctx, dir); err != nil {
		return err
	}
	if o.OpenSSL, err = run.BuildOpenSSL(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "signatures by OpenSSL are left out, a C compiler and libssl-dev are needed:", err)
		o.OpenSSL = ""
	}
	return nil
}

func measure(ctx context.Context) (bool, error) {
	o := run.Options{Log: os.Stderr}
	var cases, systems, result string
	flag.StringVar(&o.Binary, "postern", "", "postern `binary`, measured without that of OpenSSL (default: both built "+
		"from this tree)")
	flag.StringVar(&o.Dir, "dir", "", "directory on the disk to measure (default: the one for temporary files)")
	flag.IntVar(&o.Runs, "runs", 3, "runs of which the median counts")
	flag.Float64Var(&o.Scale, "scale", 1, "of the numbers of messages")
	flag.StringVar(&cases, "cases", "",
		"only these, separated by commas: reused,fresh,large,far,idle,syncs,backlog,search")
	flag.StringVar(&systems, "systems", "", "only these, separated by commas: "+
		"postfix,postern,postern-queued,postgres,postgres-queued,nodes,nodes-queued,openssl,openssl-queued,"+
		"postfix-unsigned,unsigned,unsigned-queued,postgres-unsigned")
	flag.IntVar(&o.Idle, "idle", 1000, "idle connections")
	flag.IntVar(&o.Backlog, "backlog", 200000, "queued messages")
	flag.StringVar(&result, "json", "", "write every figure to this `file`")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if cases != "" {
		o.Cases = strings.Split(cases, ",")
	}
	if systems != "" {
		o.Systems = strings.Split(systems, ",")
	}
	if o.Binary == "" && systems != "postfix" {
		dir, err := os.MkdirTemp("", "postern-build-")
		if err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
		if err := build(ctx, dir, &o); err != nil {
			return false, err
		}
	}
	results, err := run.Run(ctx, o)
	if results == nil {
		return false, err
	}
	met, tableErr := results.WriteTable(os.Stdout)
	if result != "" {
		f, ferr := os.Create(result)
		if ferr != nil {
			return false, ferr
		}
		err = errors.Join(err, results.WriteJSON(f), f.Close())
	}
	return met && err == nil, errors.Join(err, tableErr)
}
