package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"

	"postern/internal/places"
	"postern/internal/rights"
	relaystore "postern/relay/store"
)

// asService is the last argument of the command line that the service manager has of us. To look who our parent is
// would be a guess.
const asService = "--as-service"

// runAsService runs a command line under the service manager, if it is the one that the manager has, and returns the
// exit code.
func runAsService(a *app, args []string) (code int, is bool) {
	if len(args) == 0 || args[len(args)-1] != asService {
		return 0, false
	}
	args = args[:len(args)-1]
	log, err := eventlog.Open(rights.Service)
	if err != nil {
		return exitNo, true // nobody could be told
	}
	defer log.Close()
	s := &service{out: &eventWriter{to: log}, run: func(ctx context.Context, out *eventWriter, started func()) int {
		a.events, a.started, a.crashes = out.handler, started, keepCrashes
		root := rootCommandOf(a)
		root.SetErr(out)
		root.SetOut(out)
		return runIn(ctx, root, args)
	}}
	if path, missing := missingConfig(args); missing {
		s.run = func(_ context.Context, out *eventWriter, _ func()) int { return saysMissing(out, path) }
	}
	if err := svc.Run(rights.Service, s); err != nil {
		fmt.Fprintf(s.out, "postern: the service manager: %v", err)
		return exitNo, true
	}
	return s.code, true
}

// configFlag is the file of --config, or "".
func configFlag(args []string) string {
	for i, arg := range args {
		if path, is := strings.CutPrefix(arg, "--config="); is {
			return path
		}
		if arg == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// missingConfig reports that the file of --config is not there.
func missingConfig(args []string) (path string, missing bool) {
	path = configFlag(args)
	if path == "" {
		return "", false
	}
	_, err := os.Stat(path)
	return path, os.IsNotExist(err)
}

// saysMissing says that there is no configuration. After an installation that is so until somebody makes one, and no
// failure that the manager should start the service again for; where there is a store, or one was named, it is.
func saysMissing(out io.Writer, path string) (code int) {
	_, err := os.Stat(filepath.Join(places.DataDir(), relaystore.FileName))
	if path == filepath.Join(places.Etc(), "relay.toml") && err != nil {
		fmt.Fprintf(out, "postern: there is no %s yet, so the service stops: run postern setup", path)
		return 0
	}
	fmt.Fprintf(out, "postern: %s is missing, so no mail is taken: bring the file back, or name another by "+
		"postern service install --config FILE", path)
	return exitNo
}

// crashName is the file in data_dir that Go writes into when the program crashes: a service has no standard error.
const (
	crashName = "crash.log"
	maxCrash  = 8 << 10 // octets of it in the Event Log; it begins with what happened
)

// keepCrashes has a crash written into dir, and moves the one of a former life into the log.
func keepCrashes(dir string, log *slog.Logger) {
	path := filepath.Join(dir, crashName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		log.Warn("a crash would leave nothing to read", "err", err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCrash))
	if len(text) > 0 {
		kept := path + ".old"
		log.Error("postern crashed and was started again; please report what it said", "text", string(text),
			"whole", kept)
		if writeErr := copyCrash(f, kept); writeErr != nil {
			log.Warn("cannot keep what the crash said", "err", writeErr)
		}
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	if err != nil {
		log.Warn("a crash would leave nothing to read", "err", err)
	}
}

// copyCrash writes the whole of f into a file, over the one of an earlier crash.
func copyCrash(f *os.File, path string) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Seek(0, io.SeekStart)
	if err == nil {
		_, err = io.Copy(to, f)
	}
	return errors.Join(err, to.Close())
}

// ownEnv refuses the file with the environment of the service where others could have written it.
func ownEnv(path string) error {
	err := rights.Owned(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // loadEnv says what that means
	}
	return err
}

// service is what the service manager talks to.
type service struct {
	out  *eventWriter
	run  func(ctx context.Context, out *eventWriter, started func()) (code int)
	code int
}

// While it starts or drains, the manager hears every step that it goes on, and waits for the next one.
const (
	pendingStep = 2 * time.Second
	pendingHint = 20 * time.Second
)

const accepted = svc.AcceptStop | svc.AcceptPreShutdown | svc.AcceptShutdown

// Execute implements svc.Handler: it runs until the program ends, which it does once it has drained after a request to
// stop.
func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	started, ended := make(chan struct{}), make(chan int, 1)
	go func() { ended <- s.run(ctx, s.out, sync.OnceFunc(func() { close(started) })) }()
	now := svc.Status{State: svc.StartPending, WaitHint: uint32(pendingHint.Milliseconds())}
	status <- now
	tick := time.NewTicker(pendingStep)
	defer tick.Stop()
	for {
		select {
		case <-started:
			started = nil
			if now.State == svc.StartPending {
				now = svc.Status{State: svc.Running, Accepts: accepted}
				status <- now
			}
		case r := <-requests:
			if r.Cmd == svc.Stop || r.Cmd == svc.Shutdown || r.Cmd == svc.PreShutdown {
				now = svc.Status{State: svc.StopPending, WaitHint: uint32(pendingHint.Milliseconds())}
				drain()
			}
			status <- now
		case <-tick.C:
			if now.State != svc.Running {
				now.CheckPoint++
				status <- now
			}
		case s.code = <-ended:
			return true, uint32(s.code)
		}
	}
}
