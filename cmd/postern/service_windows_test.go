package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"

	"postern/internal/places"
	"postern/relay/config"
)

// notedEvents notes what the Event Log would get.
type notedEvents struct{ bytes.Buffer }

// Error notes an error.
func (n *notedEvents) Error(_ uint32, text string) error { return n.note("error", text) }

// Warning notes a warning.
func (n *notedEvents) Warning(_ uint32, text string) error { return n.note("warning", text) }

// Info notes an information.
func (n *notedEvents) Info(_ uint32, text string) error { return n.note("info", text) }

func (n *notedEvents) note(level, text string) error {
	_, err := fmt.Fprintf(n, "%s: %s|", level, text)
	return err
}

// Events have the level and the text of a record, and what is below the level of [log] is none.
func TestEvents(t *testing.T) {
	var log notedEvents
	w := &eventWriter{to: &log}
	l := slog.New(w.handler(config.Log{Level: "info", Format: "text"})).With("listener", "submission")
	l.Debug("no")
	l.Info("ready", "address", ":587")
	l.Warn("slow\nline")
	l.Error("gone")
	fmt.Fprint(w, "postern: no configuration\n")
	const want = `info: msg=ready listener=submission address=:587|warning: msg="slow\nline" listener=submission|` +
		`error: msg=gone listener=submission|error: postern: no configuration|`
	if got := log.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	log.Reset()
	io.WriteString(w, "from %1 and %%2, 100% sure %s\x00")
	if got := log.String(); got != "error: from % 1 and % % 2, 100% sure %s |" {
		t.Error(got)
	}
	log.Reset()
	fmt.Fprint(w, strings.Repeat("%", 100_000))
	if n := log.Len(); n > 31839 {
		t.Errorf("an event of %d octets", n)
	}
}

// The manager is told when mail is accepted, and when it is asked to end that the service drains, until it has.
func TestServiceDrains(t *testing.T) {
	requests, status := make(chan svc.ChangeRequest), make(chan svc.Status, 10)
	drained := make(chan struct{})
	s := &service{run: func(ctx context.Context, _ *eventWriter, started func()) int {
		started()
		<-ctx.Done()
		<-drained
		return 0
	}}
	ended := make(chan uint32)
	go func() {
		_, code := s.Execute(nil, requests, status)
		ended <- code
	}()
	expect := func(state svc.State, accepts svc.Accepted) {
		t.Helper()
		if got := <-status; got.State != state || got.Accepts != accepts {
			t.Fatalf("%+v, want state %d", got, state)
		}
	}
	expect(svc.StartPending, 0)
	expect(svc.Running, accepted)
	requests <- svc.ChangeRequest{Cmd: svc.Interrogate}
	expect(svc.Running, accepted)
	requests <- svc.ChangeRequest{Cmd: svc.Stop}
	expect(svc.StopPending, 0)
	if step := <-status; step.State != svc.StopPending || step.CheckPoint != 1 || step.WaitHint == 0 {
		t.Errorf("while it drains: %+v", step)
	}
	close(drained)
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A service that fails says so, so that the manager starts it again.
func TestServiceFails(t *testing.T) {
	s := &service{run: func(context.Context, *eventWriter, func()) int { return exitNo }}
	if own, code := s.Execute(nil, nil, make(chan svc.Status, 10)); !own || code != exitNo {
		t.Errorf("%v, %d", own, code)
	}
}

// An upgrade reads from the command line that is installed which relay.toml the service has.
func TestServiceConfigOf(t *testing.T) {
	for command, want := range map[string]string{
		windows.ComposeCommandLine([]string{`C:\Program Files\Postern\postern.exe`, "serve", "--config",
			`D:\mail relay\relay.toml`, asService}): `D:\mail relay\relay.toml`,
		`postern.exe serve --config=D:\relay.toml`: `D:\relay.toml`,
		`postern.exe serve`:                        "",
		`postern.exe serve --config`:               "",
		"":                                         "",
	} {
		if got := configOf(command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// A configuration that was named and is gone is a failure, which the service manager and people see; one that nobody
// has made yet is none.
func TestServiceMissingConfig(t *testing.T) {
	usual := filepath.Join(places.Etc(), "relay.toml")
	for path, want := range map[string]int{usual: 0, `D:\gone\relay.toml`: exitNo} {
		var log notedEvents
		if code := saysMissing(&eventWriter{to: &log}, path); code != want || !strings.Contains(log.String(), path) {
			t.Errorf("%s: exit code %d, %s", path, code, log.String())
		}
	}
}

// A crash of the service is in the Event Log once it runs again, and whole in a file.
func TestServiceCrash(t *testing.T) {
	const crashes = "POSTERN_TEST_CRASHES"
	if dir := os.Getenv(crashes); dir != "" {
		keepCrashes(dir, slog.New(slog.DiscardHandler))
		panic("the end")
	}
	dir, err := os.MkdirTemp("", "crash") // Wine lets nobody remove it
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServiceCrash$")
	cmd.Env = append(os.Environ(), crashes+"="+dir)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Fatalf("it does not crash: %s", out)
	}
	var log notedEvents
	w := &eventWriter{to: &log}
	for range 2 { // it is told once
		keepCrashes(dir, slog.New(w.handler(config.Log{Level: "info", Format: "text"})))
	}
	if err := debug.SetCrashOutput(nil, debug.CrashOptions{}); err != nil {
		t.Error(err)
	}
	if got := log.String(); strings.Count(got, "error: ") != 1 || !strings.Contains(got, "panic: the end") {
		t.Error(got)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, crashName+".old")); !strings.Contains(string(kept),
		"panic: the end") {
		t.Errorf("%s, %v", kept, err)
	}
}
