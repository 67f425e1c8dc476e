package queue_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/store"
)

// wholeStore is a queue.Store with what a person may do to messages, also while the daemon runs.
type wholeStore interface {
	queue.Store
	// List returns messages in order of ID.
	List(ctx context.Context, f queue.Filter) ([]*queue.Message, error)
	// Hold, Release, Retry, Bounce and Delete return how many messages they changed. Hold keeps a running attempt's
	// outcome. Delete leaves leased messages alone and says so by its count.
	Hold(ctx context.Context, f queue.Filter, reason string) (int64, error)
	Release(ctx context.Context, f queue.Filter, now time.Time) (int64, error)
	Retry(ctx context.Context, f queue.Filter, now time.Time) (int64, error)
	Bounce(ctx context.Context, f queue.Filter, now time.Time) (int64, error)
	Delete(ctx context.Context, f queue.Filter) (int64, error)
	// Stats counts; it may be a moment old but costs the same with any number of messages.
	Stats(ctx context.Context) (queue.Stats, error)
}

// TestStoreContract holds every implementation to the contract.
func TestStoreContract(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		runContract(t, func(*testing.T) wholeStore { return newMemstore() })
	})
	t.Run("SQLite", func(t *testing.T) {
		runContract(t, func(t *testing.T) wholeStore {
			return openStore(t, store.Options{Dir: t.TempDir(), Daemon: true})
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		runContract(t, func(t *testing.T) wholeStore {
			return openStore(t, onPostgreSQL(t, testkit.SharedPostgreSQL(t).NewDatabase(t)))
		})
	})
}

func openStore(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// onPostgreSQL is options for a node at a database.
func onPostgreSQL(t *testing.T, database string) store.Options {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	at, err := config.ParseStoreURL(u.String())
	if err != nil {
		t.Fatal(err)
	}
	return store.Options{Dir: t.TempDir(), Daemon: true, Node: "node-1", URL: at, Password: auth.Secret(password),
		SealKey: auth.Secret(strings.Repeat("k", 32))}
}

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// runContract runs the whole contract. open gives an empty store and sees to its end.
func runContract(t *testing.T, open func(t *testing.T) wholeStore) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"RoundTrip", (*suite).roundTrip},
		{"AddAllOrNone", (*suite).addAllOrNone},
		{"AddLeased", (*suite).addLeased},
		{"AddRefusesWrongContent", (*suite).addWrongContent},
		{"ContentSizes", (*suite).contentSizes},
		{"ContentByManyReaders", (*suite).manyReaders},
		{"ContentOfGoneMessage", (*suite).contentOfGone},
		{"NotFound", (*suite).notFound},
		{"Lease", (*suite).lease},
		{"LeaseOfOthers", (*suite).leaseOfOthers},
		{"LeaseRunsOut", (*suite).leaseRunsOut},
		{"FinishKeeps", (*suite).finishKeeps},
		{"FinishRemoves", (*suite).finishRemoves},
		{"FinishAddsReports", (*suite).finishReports},
		{"FinishAllOrNone", (*suite).finishAllOrNone},
		{"OldVersions", (*suite).oldVersions},
		{"ReadBeforeOutcome", (*suite).readBeforeOutcome},
		{"LeaseTwice", (*suite).leaseTwice},
		{"RecordOfOthers", (*suite).recordOfOthers},
		{"PostponeAfterOutcome", (*suite).postponeAfterOutcome},
		{"RecordOfNobody", (*suite).recordOfNobody},
		{"ReleaseLeases", (*suite).releaseLeases},
		{"DueInTime", (*suite).dueInTime},
		{"DueTakesTurns", (*suite).dueTakesTurns},
		{"DueGoesRound", (*suite).dueGoesRound},
		{"DueOfOneBulkLogin", (*suite).dueBulk},
		{"DueOwnReports", (*suite).dueOwnReports},
		{"PostponeAndWake", (*suite).postponeAndWake},
		{"WakeTakesTurns", (*suite).wakeTakesTurns},
		{"Hold", (*suite).hold},
		{"HoldKeepsOutcome", (*suite).holdKeepsOutcome},
		{"Retry", (*suite).retry},
		{"Bounce", (*suite).bounce},
		{"BounceDuringAttempt", (*suite).bounceDuringAttempt},
		{"Delete", (*suite).delete},
		{"Filters", (*suite).filters},
		{"ListPages", (*suite).listPages},
		{"ActionsOverMany", (*suite).actionsOverMany},
		{"Stats", (*suite).stats},
		{"ContextEnds", (*suite).contextEnds},
		{"Concurrent", (*suite).concurrent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, store: open(t), ctx: t.Context(), now: time.Now().UTC().Truncate(time.Microsecond)})
		})
	}
	t.Run("Model", func(t *testing.T) { runModel(t, open) })
}

// suite is one test with a store of its own.
type suite struct {
	*testing.T
	store wholeStore
	ctx   context.Context
	now   time.Time
}

const owner = "node-1"

// message makes a message of a login that is due now; the ID sorts as the number does.
func (s *suite) message(n int, login string) *queue.Message {
	return &queue.Message{
		ID: fmt.Sprintf("%016d", n), Login: login, Listener: "submission", Session: "session-1",
		Envelope: mail.Envelope{From: mail.Address{Local: "alice", Domain: "example.com"}, Size: 12},
		Recipients: []queue.Recipient{
			{Recipient: mail.Recipient{To: mail.Address{Local: "bob", Domain: "example.net"}}, Status: queue.Pending},
		},
		Author: mail.Address{Local: "alice", Domain: "example.com"}, MessageID: "<1@example.com>",
		Size:     int64(len(hello)),
		Received: s.now.Add(time.Duration(n) * time.Microsecond), Expires: s.now.Add(48 * time.Hour),
		NextAttempt: s.now,
	}
}

const hello = "Subject: hello\r\n\r\nHello.\r\n"

func with(m *queue.Message) queue.NewMessage {
	return queue.NewMessage{Message: m, Content: mail.BytesContent(hello)}
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) wantErr(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("got error %v, want %v", err, want)
	}
}

// add adds messages that are due now and returns their IDs.
func (s *suite) add(login string, numbers ...int) (ids []string) {
	s.Helper()
	var news []queue.NewMessage
	for _, n := range numbers {
		m := s.message(n, login)
		news, ids = append(news, with(m)), append(ids, m.ID)
	}
	s.must(s.store.Add(s.ctx, news...))
	return ids
}

func (s *suite) get(id string) *queue.Message {
	s.Helper()
	m, err := s.store.Get(s.ctx, id)
	s.must(err)
	return m
}

// version is the one that a message has now, 0 where there is none.
func (s *suite) version(id string) queue.Version {
	m, err := s.store.Get(s.ctx, id)
	if err != nil {
		return queue.Version{ID: id}
	}
	return m.Version()
}

func (s *suite) versions(ids ...string) (vs []queue.Version) {
	for _, id := range ids {
		vs = append(vs, s.version(id))
	}
	return vs
}

func (s *suite) lent(id string) {
	s.Helper()
	s.must(s.store.Lease(s.ctx, s.version(id), owner, s.now, s.now.Add(time.Hour)))
}

func (s *suite) due(after string, perLogin, limit int) ([]string, time.Time) {
	s.Helper()
	due, next, err := s.store.Due(s.ctx, s.now, after, perLogin, limit)
	s.must(err)
	return ids(due), next
}

func (s *suite) wantDue(want ...string) {
	s.Helper()
	got, _ := s.due("", 100, 100)
	s.same(got, want)
}

func (s *suite) same(got, want []string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Fatalf("got %q, want %q", got, want)
	}
}

func (s *suite) count(n int64, err error, want int64) {
	s.Helper()
	s.must(err)
	if n != want {
		s.Fatalf("%d messages were changed, want %d", n, want)
	}
}

func (s *suite) wantStats(want queue.Stats) {
	s.Helper()
	got, err := s.store.Stats(s.ctx)
	s.must(err)
	if want.Oldest.IsZero() {
		got.Oldest = time.Time{}
	}
	if !got.Oldest.Equal(want.Oldest) {
		s.Fatalf("oldest is of %v, want %v", got.Oldest, want.Oldest)
	}
	got.Oldest = want.Oldest
	if got != want {
		s.Fatalf("got %+v, want %+v", got, want)
	}
}

func ids(messages []*queue.Message) (ids []string) {
	for _, m := range messages {
		ids = append(ids, m.ID)
	}
	return ids
}

func named(ids ...string) queue.Filter { return queue.Filter{IDs: ids} }

// read reads a stored content to its end.
func (s *suite) read(id string) []byte {
	s.Helper()
	c, err := s.store.Content(s.ctx, id)
	s.must(err)
	b, err := readAll(c)
	s.must(err)
	if c.Size() != int64(len(b)) {
		s.Fatalf("content of %s says that it has %d octets and has %d", id, c.Size(), len(b))
	}
	return b
}

func readAll(c mail.Content) ([]byte, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// unheldContent is a content that is not in memory: it can only be read.
type unheldContent struct {
	b    []byte
	size int64
	err  error // at the end, instead of io.EOF
}

func (c unheldContent) Size() int64   { return c.size }
func (c unheldContent) Bytes() []byte { return nil }

func (c unheldContent) Open() (io.ReadCloser, error) {
	var r io.Reader = bytes.NewReader(c.b)
	if c.err != nil {
		r = io.MultiReader(r, errReader{c.err})
	}
	return io.NopCloser(r), nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// compare reports the first difference of two messages; times are compared as moments.
func compare(got, want *queue.Message) error {
	type field struct {
		name      string
		got, want any
	}
	for _, f := range []field{
		{"ID", got.ID, want.ID}, {"Login", got.Login, want.Login}, {"Listener", got.Listener, want.Listener},
		{"Session", got.Session, want.Session}, {"Author", got.Author, want.Author},
		{"MessageID", got.MessageID, want.MessageID},
		{"Groups", fmt.Sprintf("%q", got.Groups), fmt.Sprintf("%q", want.Groups)},
		{"Envelope", fmt.Sprintf("%+v", got.Envelope), fmt.Sprintf("%+v", want.Envelope)},
		{"Recipients", fmt.Sprintf("%+v", got.Recipients), fmt.Sprintf("%+v", want.Recipients)},
		{"Size", got.Size, want.Size}, {"EightBit", got.EightBit, want.EightBit},
		{"Attempts", got.Attempts, want.Attempts},
		{"Received", got.Received.UnixNano(), want.Received.UnixNano()},
		{"Expires", got.Expires.UnixNano(), want.Expires.UnixNano()},
		{"NextAttempt", got.NextAttempt.UnixNano(), want.NextAttempt.UnixNano()},
		{"LeaseUntil", got.LeaseUntil.UnixNano(), want.LeaseUntil.UnixNano()},
		{"WaitingFor", got.WaitingFor, want.WaitingFor}, {"LastReply", got.LastReply, want.LastReply},
		{"Warned", got.Warned, want.Warned},
		{"Held", got.Held, want.Held}, {"HoldReason", got.HoldReason, want.HoldReason},
		{"Bounce", got.Bounce, want.Bounce},
		{"LeaseOwner", got.LeaseOwner, want.LeaseOwner},
	} {
		if f.got != f.want {
			return fmt.Errorf("%s of %s: got %v, want %v", f.name, cmp.Or(want.ID, "a message"), f.got, f.want)
		}
	}
	return nil
}
