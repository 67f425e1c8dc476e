package store

import (
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/trace"
)

// What a server says of itself, and of what its user may: an ordinary one that owns the tables, an administrator, and
// one that was given too little.
func TestServerFacts(t *testing.T) {
	if onServer() {
		t.Skip("it is run once")
	}
	if f, err := open(t, Options{}).Server(t.Context()); f != nil || err != nil {
		t.Errorf("of a file: %+v, %v", f, err)
	}
	pg := testkit.SharedPostgreSQL(t)
	address := pg.NewDatabase(t)
	s := open(t, ofServer(t, address, "", false))
	f, err := s.Server(t.Context())
	if err != nil || f.Version < 140000 || f.Pooled || f.Encrypted || f.Commit != "on" || f.Standbys != "" ||
		f.Copies != 0 || f.Ahead.Abs() > time.Minute || f.Size < 1<<20 || f.Superuser || !f.MayCreate || !f.Owner {
		t.Errorf("%+v, %v", f, err)
	}

	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	admin := pg.AdminURL(strings.TrimPrefix(u.Path, "/"))
	testkit.SQL(t, admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC, "+testkit.PGUser)
	testkit.SQL(t, admin, "ALTER SCHEMA public OWNER TO postgres")
	testkit.SQL(t, admin, "ALTER TABLE alert OWNER TO postgres")
	if f, err = s.Server(t.Context()); err != nil || f.MayCreate || f.Owner {
		t.Errorf("with few rights: %+v, %v", f, err)
	}
	ours, _, _ := strings.Cut(admin, "&options=") // which the store does not take
	if f, err = open(t, ofServer(t, ours, "", false)).Server(t.Context()); err != nil || !f.Superuser || !f.MayCreate ||
		!f.Owner {
		t.Errorf("as an administrator: %+v, %v", f, err)
	}
}

// A command on a machine without a daemon waits for what the daemon of another one has not written down yet; where none
// lives, it does not wait.
func TestAwaitEventsOfAnotherMachine(t *testing.T) {
	if onServer() {
		t.Skip("it is run once")
	}
	address := testkit.SharedPostgreSQL(t).NewDatabase(t)
	command := open(t, ofServer(t, address, "", false))
	if !command.AwaitEvents(t.Context()) {
		t.Error("it waits for nobody")
	}
	daemon, other := open(t, ofServer(t, address, "a", true)), open(t, ofServer(t, address, "b", true))
	waited := make(chan bool)
	go func() { waited <- command.AwaitEvents(t.Context()) }()
	asked := int64(0)
	for asked == 0 {
		now, err := daemon.Generations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		asked = now[TopicTraceAsked]
	}
	appendEvents(t, daemon, trace.Event{Time: eventTime, Kind: trace.Delivered, Detail: "1"})
	if err := other.AnswerEvents(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	if command.answered(t.Context(), asked) {
		t.Error("the answer of one node is taken for that of all")
	}
	if err := daemon.AnswerEvents(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	if !<-waited {
		t.Error("the answer was not seen")
	}
	if events, err := command.Events(t.Context(), trace.Query{}); err != nil || len(events) != 1 {
		t.Errorf("%+v, %v", events, err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.AnswerEvents(t.Context(), math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	if !command.AwaitEvents(t.Context()) {
		t.Error("it waits for a node that has ended")
	}
	if err := daemon.Close(); err != nil {
		t.Fatal(err)
	}
	if !command.AwaitEvents(t.Context()) {
		t.Error("it waits for those that have ended")
	}
}
