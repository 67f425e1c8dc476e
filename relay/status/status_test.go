package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/errno"
	"postern/relay/upstream"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// waiting is an upstream of so many identities, of which some wait.
func waiting(name string, state State, total, waiting int) Upstream {
	u := Upstream{Name: name, State: state, Total: total, Waiting: waiting}
	for range min(waiting, Most) {
		u.Identities = append(u.Identities, Identity{Identity: "relay@example.com", Status: upstream.Paused,
			Since:   now.Add(-14 * time.Minute),
			NextTry: now.Add(3 * time.Minute), Reply: "535 5.7.8 wrong password", Code: "535 5.7.8"})
	}
	return u
}

func TestJudge(t *testing.T) {
	works := Upstream{Name: "b", State: Works, Total: 1}
	for _, c := range []struct {
		what string
		r    Report
		ok   bool
		want string
	}{
		{"nothing runs", Report{Queue: Queue{Waiting: 3}}, false,
			"No mail can leave: postern does not run, and mail waits (3 messages). Start it with: postern serve"},
		{"starting", Report{Running: true, Phase: Starting}, false, "is starting"},
		{"stopping", Report{Running: true, Phase: Stopping}, false, "is shutting down"},
		{"all work", Report{Running: true, Upstreams: []Upstream{works}}, true, "Mail can leave."},
		{"the only one paused", Report{Running: true, Upstreams: []Upstream{waiting("a", Paused, 1, 1)},
			Queue: Queue{Waiting: 1}}, false,
			`No mail can leave: a is paused for 14 min ("535 5.7.8 wrong password"), next try in 3 min. ` +
				`New mail is accepted and waits (1 message).`},
		{"both down", Report{Running: true, Upstreams: []Upstream{waiting("a", Paused, 1, 1),
			waiting("b", Unreachable, 1, 1)}}, false,
			"No mail can leave: a is paused for 14 min (\"535 5.7.8 wrong password\"), next try in 3 min; b is " +
				"unreachable"},
		{"one of two", Report{Running: true, Upstreams: []Upstream{waiting("a", Unreachable, 1, 1), works}}, true,
			"Mail can leave by 1 of 2 upstreams: a is unreachable"},
		{"a route without way", Report{Running: true, Upstreams: []Upstream{waiting("a", Paused, 1, 1), works},
			Unreachable: []string{"route[1]"}}, true,
			"Mail can leave, but none by route[1]: a is paused"},
		{"some mailboxes", Report{Running: true, Upstreams: []Upstream{waiting("a", Partly, 1000, 7)}}, true,
			"Mail can leave, but not as 7 of 1000 identities at a."},
		{"some senders", Report{Running: true, Upstreams: []Upstream{{Name: "a", State: Works, Denied: 2}}}, true,
			"Mail can leave, but not from 2 senders that a does not take."},
		{"no room", Report{Running: true, Upstreams: []Upstream{works},
			Disk: Disk{Refuses: true, Problem: "the disk is full"}}, false,
			"No new mail is taken: the disk is full. What waits can leave."},
		{"no database", Report{Running: true, Upstreams: []Upstream{works},
			Disk: Disk{Refuses: true, Away: true, Problem: "the database is away"}}, false,
			"No new mail is taken, and what waits cannot leave: the database is away. It goes on by itself"},
		{"neither", Report{Running: true, Upstreams: []Upstream{waiting("a", BackingOff, 1, 1)},
			Disk: Disk{Refuses: true, Problem: "the disk is full"}}, false,
			"No mail can leave, and no new mail is taken: a asks us to wait"},
	} {
		c.r.Time = now
		if c.r.Running && c.r.Phase == "" {
			c.r.Phase = Serving
		}
		c.r.Summarize()
		if c.r.OK != c.ok || !strings.Contains(c.r.Summary, c.want) {
			t.Errorf("%s: %v %q, want %v %q", c.what, c.r.OK, c.r.Summary, c.ok, c.want)
		}
	}
}

// What everybody on the machine may read names upstreams and codes, no addresses and no texts, and is bounded.
func TestNotes(t *testing.T) {
	r := Report{Time: now}
	for i := range 500 {
		r.Upstreams = append(r.Upstreams, waiting(fmt.Sprintf("u%d", i), Paused, 1000, 900))
	}
	r.Upstreams = append(r.Upstreams, Upstream{Name: "good", State: Works,
		Identities: []Identity{{Status: upstream.Ready}}})
	notes := r.Notes()
	if want := "upstream u0: paused, 900 of 1000 identities, since 2026-11-28T11:46:00Z, after 535 5.7.8"; len(
		notes) != Most+1 || notes[0] != want ||
		notes[Most] != "480 others" {
		t.Errorf("%d notes: %q, want first %q", len(notes), notes, want)
	}
	all := strings.Join(notes, "\n")
	for _, secret := range []string{"relay@example.com", "wrong password", "good"} {
		if strings.Contains(all, secret) {
			t.Errorf("the notes have %q", secret)
		}
	}
}

// serve answers for a directory until the test ends or stop is called.
func serve(t *testing.T, dir string, report func(context.Context) *Report) (stop func()) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Serve(ctx, l, report) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestAsk(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{t.TempDir(), long} {
		if _, err := Ask(t.Context(), dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("nobody: %v", err)
		}
		stop := serve(t, dir, func(context.Context) *Report {
			return &Report{Hostname: "relay.example.com",
				Running: true}
		})
		info, err := os.Stat(filepath.Join(dir, SocketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v %v", info.Mode(), err)
		}
		for range 3 {
			if r, err := Ask(t.Context(), dir); err != nil || r.Hostname != "relay.example.com" {
				t.Errorf("%v %v", r, err)
			}
		}
		stop()
		if _, err := os.Stat(filepath.Join(dir, SocketName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	}
}

// A socket that a killed daemon left is told apart from one that does not answer, and is replaced.
func TestLeftSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	var daemon sync.WaitGroup
	daemon.Go(func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
		l.Close()
	})
	if _, err := Ask(t.Context(), dir); !errors.Is(err, ErrSilent) {
		t.Errorf("one that says nothing: %v", err)
	}
	daemon.Wait()
	if _, err := Ask(t.Context(), dir); !errors.Is(err, errno.Refused) {
		t.Errorf("one that is left: %v", err)
	}
	serve(t, dir, func(context.Context) *Report { return &Report{} })
	if _, err := Ask(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// Lists are never null, and keys are in lower case.
func TestJSON(t *testing.T) {
	b, err := json.Marshal(Report{Upstreams: []Upstream{waiting("a", Paused, 1, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`"Code"`, `"Reply"`, `"Identity"`} {
		if strings.Contains(string(b), bad) {
			t.Errorf("%s has %s", b, bad)
		}
	}
}
