package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"postern/internal/child"
	"postern/internal/pgserver"
	"postern/internal/rights"
	"postern/relay/config"
	"postern/relay/queue"
)

const (
	demoRetry     = 5 * time.Second // from the attempt that is greylisted to the next one
	demoNodeLimit = time.Minute     // for a node to start, or the other to send what it left
	demoNodeEnds  = 20 * time.Second
	demoPoll      = 50 * time.Millisecond
	demoLogTail   = 4 << 10 // octets of the log of a node that does not start
)

// demoNode is one of two nodes: a process, so that it can be killed.
type demoNode struct {
	name, dir                    string
	submission, submissions, web string // ports where they are free
	config                       *config.Config
	process                      *child.Process
}

// demoPair is the two nodes and what they share.
type demoPair struct {
	*demo
	a, b     *demoNode
	database *pgserver.Server
	queue    store     // of both
	killed   time.Time // when node a was
}

func newDemoPair(d *demo) *demoPair {
	return &demoPair{
		demo: d,
		a:    &demoNode{name: "a", submission: demoPort, submissions: demoTLS, web: demoConsole},
		b:    &demoNode{name: "b", submission: "2588", submissions: "2466", web: "8588"},
	}
}

func (n *demoNode) address() string { return n.config.Listeners[0].Address }

const demoStore = `[store]
url = %q
seal_key = "file:../nodes.key"
node = %q

[delivery]
retry = [%q]

`

// startDatabase is the first step: what it needs may be missing.
func (d *demoPair) startDatabase(ctx context.Context) (err error) {
	if d.database, err = pgserver.Start(ctx, ""); err != nil {
		return err
	}
	d.step("A PostgreSQL of its own runs in a temporary directory. Both nodes keep queue, accounts and keys there.")
	return nil
}

// startNodes writes the configurations, which differ in names and ports, makes an account in the database and starts
// this program once for each.
func (d *demoPair) startNodes(ctx context.Context) error {
	key := make([]byte, 32)
	rand.Read(key)
	text := base64.StdEncoding.EncodeToString(key)
	if err := writeNew(filepath.Join(d.dir, "nodes.key"), text); err != nil {
		return err
	}
	for _, n := range []*demoNode{d.a, d.b} {
		if err := d.configureNode(n); err != nil {
			return err
		}
	}
	d.config = d.a.config
	if err := d.makeAccount(ctx, d.config); err != nil {
		return err
	}
	for _, n := range []*demoNode{d.a, d.b} {
		if err := n.start(ctx); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
		d.step("Node %s is process %d and listens on %s.", n.name, n.process.Pid(), n.address())
	}
	return d.turnTo(d.a)
}

func (d *demoPair) configureNode(n *demoNode) error {
	n.dir = filepath.Join(d.dir, n.name)
	if err := rights.Mkdir(n.dir); err != nil {
		return err
	}
	var addresses []any
	for _, port := range []string{n.submission, n.submissions, n.web} {
		address, err := demoFixed(port)
		if err != nil {
			return err
		}
		addresses = append(addresses, address)
	}
	upstream, err := d.upstreamConfig()
	if err != nil {
		return err
	}
	store := fmt.Sprintf(demoStore, d.database.URL(), n.name, demoRetry)
	text := fmt.Sprintf(demoConfig, addresses...) + store + upstream
	n.config, err = writeConfig(n.dir, text)
	return err
}

// start starts the node and waits until it takes mail, which it tells as it would tell systemd.
func (n *demoNode) start(ctx context.Context) error {
	socket := &net.UnixAddr{Net: "unixgram", Name: filepath.Join(n.dir, "notify")}
	told, err := net.ListenUnixgram(socket.Net, socket)
	if err != nil {
		return err
	}
	defer os.Remove(socket.Name)
	defer told.Close()
	if err := n.launch(socket.Name); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		buf, n, err := make([]byte, 256), 0, error(nil)
		for err == nil && !bytes.Contains(buf[:n], []byte("READY=1")) { // it tells of its sockets too
			n, err = told.Read(buf)
		}
		ready <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, demoNodeLimit)
	defer cancel()
	select {
	case err := <-ready:
		return err
	case <-n.process.Done():
		text, _ := os.ReadFile(n.log())
		return fmt.Errorf("it ended: %w\n%s", cmp.Or(n.process.Err(), errSilent), text[max(0, len(text)-demoLogTail):])
	case <-ctx.Done():
		return fmt.Errorf("wait until it listens: %w", ctx.Err())
	}
}

func (n *demoNode) log() string { return filepath.Join(n.dir, "log") }

func (n *demoNode) launch(socket string) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(n.log())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path, "serve", "--config", n.config.Path())
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	cmd.Stdout, cmd.Stderr = log, log
	n.process, err = child.Start(cmd, syscall.SIGKILL)
	return err
}

// until waits until something is so.
func until(ctx context.Context, what string, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoNodeLimit)
	defer cancel()
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		if done, err := so(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
	}
}

// turnTo makes a node the one that the demonstration talks to.
func (d *demoPair) turnTo(n *demoNode) (err error) {
	d.config, d.home = n.config, n.dir
	d.address, d.implicit = n.address(), n.config.Listeners[1].Address
	d.roots, err = trusted(filepath.Join(n.config.DataDir, "tls", "self-signed.crt"))
	return err
}

// loseNode has node a accept a message, and kills it before it can deliver it.
func (d *demoPair) loseNode(ctx context.Context) (err error) {
	a := d.a
	if d.queue, err = openStoreOf(ctx, d.config); err != nil {
		return err
	}
	if err := d.submit("A mail client sent a message to node a with STARTTLS and AUTH PLAIN. Node a answered after " +
		"%s:"); err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	d.step("With that answer it has promised to deliver it: the client keeps no copy.")
	var waiting *queue.Message
	err = until(ctx, "the message waits", func() (bool, error) {
		all, err := d.queue.List(ctx, queue.Filter{})
		if err != nil || len(all) != 1 || all[0].Attempts == 0 || !all[0].LeaseUntil.IsZero() {
			return false, err
		}
		waiting = all[0]
		return true, nil
	})
	if err != nil {
		return err
	}
	d.step("Its attempt failed: the upstream said \"%d %s %s\". The message waits in the database, due in %s.",
		waiting.LastReply.Code, waiting.LastReply.Enhanced, waiting.LastReply.Text,
		time.Until(waiting.NextAttempt).Round(100*time.Millisecond))
	a.process.Kill()
	d.killed = time.Now()
	d.step("Node a was killed (kill -9 %d), as if its machine had lost its power.", a.process.Pid())
	return nil
}

// takeOver waits for what node b does.
func (d *demoPair) takeOver(ctx context.Context) error {
	d.step("Node b takes what waits of a node that has shown no sign of life for 10 seconds ...")
	bounded, cancel := context.WithTimeout(ctx, demoNodeLimit)
	defer cancel()
	got, err := d.upstream.WaitMessage(bounded)
	if err != nil {
		return fmt.Errorf("wait for the message at the upstream: %w", err)
	}
	d.step("Node b sent it, %s after node a died.", got.Received.Sub(d.killed).Round(100*time.Millisecond))
	if err := compare(d.demo, got); err != nil {
		return err
	}
	err = until(ctx, "the queue is empty", func() (bool, error) {
		st, err := d.queue.Stats(ctx)
		return st.Messages == 0, err
	})
	if err != nil {
		return err
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := d.upstream.WaitMessage(over); err == nil { // it had one without waiting
		return errors.New("the upstream has the message twice")
	}
	d.step("The queue is empty, and the upstream has the message once: nothing was lost, nothing came twice.")
	return nil
}

// keep starts node a again, for those who go on with the demonstration.
func (d *demoPair) keep(ctx context.Context) error {
	a, b := d.a, d.b
	if err := a.start(ctx); err != nil {
		return fmt.Errorf("node a: %w", err)
	}
	fmt.Fprintf(d.out, `
Node a runs again, as process %d at %s; node b is process %d. Kill either, or look at both:

  %s node list --config %s
`, a.process.Pid(), a.address(), b.process.Pid(), ownCommand(), b.config.Path())
	return d.turnTo(b)
}

// close ends the nodes, and then the database.
func (d *demoPair) close() {
	if d.queue != nil {
		d.queue.Close()
	}
	for _, n := range []*demoNode{d.a, d.b} {
		if n.process != nil {
			n.process.End(syscall.SIGTERM, demoNodeEnds)
		}
	}
	if d.database != nil {
		d.database.Close()
	}
}
