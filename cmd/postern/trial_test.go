package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
)

// TestUpstreamTestIsLive: steps are printed before the next is over, and a server that says nothing costs the time that
// was given.
func TestUpstreamTestIsLive(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	goOn := make(chan struct{})
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		<-goOn
		fmt.Fprint(c, "554 5.7.1 not you\r\n")
		io.Copy(io.Discard, c)
	}()
	config := fmt.Sprintf("%s/relay.toml", t.TempDir())
	writeTo(t, config, fmt.Sprintf("data_dir = \"data\"\n[[upstream]]\nname = \"office\"\nhost = "+
		"\"127.0.0.1\"\nport = %d\ntls = \"starttls\"\nusername = \"relay\"\npassword = \"x y z secret\"\n",
		l.Addr().(*net.TCPAddr).Port))
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan int, 1)
	go func() {
		root := rootCommand()
		root.SetOut(w)
		root.SetArgs([]string{"--config", config, "upstream", "test", "office", "--timeout", "10m"})
		err := root.ExecuteContext(ctx)
		w.Close()
		if err != nil {
			done <- exitNo
			return
		}
		done <- 0
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "ok    connect") {
	}
	close(goOn) // the server speaks only when connect was on the screen
	var rest strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&rest, lines.Text())
	}
	if code := <-done; code != exitNo || !strings.Contains(rest.String(), "FAIL  greeting") ||
		!strings.Contains(rest.String(), "not you") {
		t.Errorf("exit code %d:\n%s", code, rest.String())
	}
}

// A silent server ends the test after a third of --timeout, with a word about that.
func TestUpstreamTestIsShort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections, and nobody speaks
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	config := fmt.Sprintf("%s/relay.toml", t.TempDir())
	writeTo(t, config, fmt.Sprintf("data_dir = \"data\"\n[[upstream]]\nname = \"office\"\nhost = "+
		"\"127.0.0.1\"\nport = %d\ntls = \"none\"\n", l.Addr().(*net.TCPAddr).Port))
	begun := time.Now()
	out := testkit.Run(t, "", "--config", config, "upstream", "test", "office", "--timeout", "3s")
	if out.OK || !strings.Contains(out.Text, "FAIL  greeting") ||
		!strings.Contains(out.Text, "It had 1s; give it longer with --timeout.") {
		t.Errorf("%s", out.Text)
	}
	if took := time.Since(begun); took > 2*time.Minute { // of the five that RFC 5321 gives a greeting
		t.Errorf("it took %s", took)
	}
	if out := testkit.Run(t, "", "--config", config, "upstream", "test", "office", "--timeout", "1ms"); out.OK ||
		!strings.Contains(out.Text, "too short") {
		t.Errorf("%s", out.Text)
	}
}

func writeTo(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
