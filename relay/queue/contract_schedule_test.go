package queue_test

import (
	"fmt"
	"slices"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

func (s *suite) lease() {
	id := s.add("alice", 1)[0]
	s.must(s.store.Postpone(s.ctx, s.versions(id), s.now, "office"))
	until := s.now.Add(time.Minute)
	s.must(s.store.Lease(s.ctx, s.version(id), owner, s.now, until))
	m := s.get(id)
	if m.Attempts != 1 || m.LeaseOwner != owner || !m.LeaseUntil.Equal(until) {
		s.Fatalf("got %d attempts, lease %q until %v", m.Attempts, m.LeaseOwner, m.LeaseUntil)
	}
	s.wantDue()
	until = until.Add(time.Hour)
	s.must(s.store.Extend(s.ctx, s.version(id), owner, until))
	if m := s.get(id); m.Attempts != 1 || !m.LeaseUntil.Equal(until) {
		s.Fatalf("extended: got %d attempts until %v", m.Attempts, m.LeaseUntil)
	}
}

func (s *suite) leaseOfOthers() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	later := s.now.Add(2 * time.Hour)
	s.wantErr(s.store.Lease(s.ctx, s.version(id), "node-2", s.now, later), queue.ErrNotFound)
	s.wantErr(s.store.Extend(s.ctx, s.version(id), "node-2", later), queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, s.version(id), "node-2", queue.Outcome{Remove: true}), queue.ErrNotFound)
	if m := s.get(id); m.LeaseOwner != owner || m.Attempts != 1 {
		s.Fatalf("the lease belongs to %q after %d attempts", m.LeaseOwner, m.Attempts)
	}
	// Without a lease nothing can be finished or extended.
	free := s.add("alice", 2)[0]
	s.wantErr(s.store.Extend(s.ctx, s.version(free), owner, later), queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, s.version(free), owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
}

// oldVersions: what was decided about a version does not hold for the next one.
func (s *suite) oldVersions() {
	id := s.add("alice", 1)[0]
	old := s.version(id)
	s.lent(id)
	first := s.version(id)
	s.must(s.store.Finish(s.ctx, first, owner, queue.Outcome{Recipients: s.get(id).Recipients, NextAttempt: s.now}))
	until := s.now.Add(time.Hour)
	s.wantErr(s.store.Lease(s.ctx, old, "node-2", s.now, until), queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, first, owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.must(s.store.Postpone(s.ctx, []queue.Version{old}, until, "office"))
	s.wantDue(id)
	s.lent(id)
	s.wantErr(s.store.Extend(s.ctx, first, owner, until), queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, first, owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.wantErr(s.store.Record(s.ctx, first, owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true}))
}

// readBeforeOutcome: who has read a message while another attempt ran knows nothing of its outcome.
func (s *suite) readBeforeOutcome() {
	id := s.add("alice", 1)[0]
	s.must(s.store.Lease(s.ctx, s.version(id), owner, s.now.Add(-time.Hour), s.now.Add(-time.Minute)))
	old := s.version(id)
	partly := queue.Outcome{Recipients: s.get(id).Recipients, NextAttempt: s.now}
	partly.Recipients[0].Status = queue.Delivered
	s.must(s.store.Finish(s.ctx, old, owner, partly))
	s.wantErr(s.store.Lease(s.ctx, old, "node-2", s.now, s.now.Add(time.Hour)), queue.ErrNotFound)
	s.wantErr(s.store.Record(s.ctx, old, "node-2", queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.must(s.store.Lease(s.ctx, s.version(id), "node-2", s.now, s.now.Add(time.Hour)))
}

// leaseTwice: the answer to the first may have been lost.
func (s *suite) leaseTwice() {
	id := s.add("alice", 1)[0]
	v := s.version(id)
	s.must(s.store.Lease(s.ctx, v, owner, s.now, s.now.Add(time.Hour)))
	s.must(s.store.Lease(s.ctx, v, owner, s.now, s.now.Add(time.Hour)))
	s.wantErr(s.store.Lease(s.ctx, v, "node-2", s.now, s.now.Add(time.Hour)), queue.ErrNotFound)
	s.wantErr(s.store.Lease(s.ctx, s.version(id), owner, s.now, s.now.Add(time.Hour)), queue.ErrNotFound)
	if n := s.get(id).Attempts; n != 1 {
		s.Fatalf("one attempt counts as %d", n)
	}
}

// recordOfOthers: who comes late writes down whom it delivered to, and the lease of another stays; that one's outcome
// is of an older version then, and is recorded as well.
func (s *suite) recordOfOthers() {
	id := s.add("alice", 1)[0]
	s.must(s.store.Lease(s.ctx, s.version(id), owner, s.now.Add(-time.Hour), s.now.Add(-time.Minute)))
	until := s.now.Add(time.Hour)
	s.must(s.store.Lease(s.ctx, s.version(id), "node-2", s.now, until))
	theirs, want := s.version(id), s.get(id)
	want.Recipients[0].Status, want.LastReply = queue.Delivered, mail.R(250, "2.0.0", "taken")
	s.must(s.store.Record(s.ctx, theirs, owner, queue.Outcome{Recipients: want.Recipients, LastReply: want.LastReply,
		NextAttempt: s.now.Add(9 * time.Hour), WaitingFor: "office", Warned: true}))
	want.Attempts++
	if err := compare(s.get(id), want); err != nil {
		s.Fatal(err)
	}
	s.wantErr(s.store.Extend(s.ctx, theirs, "node-2", until), queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, theirs, "node-2", queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.wantErr(s.store.Record(s.ctx, theirs, "node-2", queue.Outcome{Remove: true}), queue.ErrNotFound)
	want.NextAttempt, want.WaitingFor, want.Warned = s.now.Add(time.Minute), "office", true
	s.must(s.store.Record(s.ctx, s.version(id), "node-2", queue.Outcome{Recipients: want.Recipients,
		LastReply: want.LastReply, NextAttempt: want.NextAttempt, WaitingFor: "office", Warned: true}))
	want.LeaseOwner, want.LeaseUntil = "", time.Time{}
	want.Attempts++
	if err := compare(s.get(id), want); err != nil {
		s.Fatal(err)
	}
}

// postponeAfterOutcome: who read a message while another attempt ran does not put it off once that has ended.
func (s *suite) postponeAfterOutcome() {
	id := s.add("alice", 1)[0]
	s.must(s.store.Lease(s.ctx, s.version(id), owner, s.now.Add(-time.Hour), s.now.Add(-time.Minute)))
	read, next := s.version(id), s.now.Add(10*time.Minute)
	s.must(s.store.Finish(s.ctx, read, owner, queue.Outcome{Recipients: s.get(id).Recipients, NextAttempt: next}))
	s.must(s.store.Postpone(s.ctx, []queue.Version{read}, s.now.Add(time.Second), "office"))
	if m := s.get(id); !m.NextAttempt.Equal(next) || m.WaitingFor != "" {
		s.Fatalf("it is due at %v and waits for %q", m.NextAttempt, m.WaitingFor)
	}
}

// recordOfNobody: what came late may be all that there was to do. If it is not, the message is due when it was.
func (s *suite) recordOfNobody() {
	kept := s.add("alice", 3)[0]
	m := s.get(kept)
	s.must(s.store.Record(s.ctx, m.Version(), owner, queue.Outcome{Recipients: m.Recipients,
		NextAttempt: s.now.Add(time.Hour), WaitingFor: "office"}))
	s.wantDue(kept)
	s.must(s.store.Record(s.ctx, s.version(kept), owner, queue.Outcome{Remove: true}))
	id := s.add("alice", 1)[0]
	report := s.message(2, "")
	s.must(s.store.Record(s.ctx, s.version(id), owner, queue.Outcome{Remove: true,
		Reports: []queue.NewMessage{with(report)}}))
	s.wantDue(report.ID)
	s.wantStats(queue.Stats{Messages: 1, Bytes: int64(len(hello))})
}

func (s *suite) leaseRunsOut() {
	id := s.add("alice", 1)[0]
	s.must(s.store.Lease(s.ctx, s.version(id), owner, s.now.Add(-time.Hour), s.now.Add(-time.Minute)))
	s.wantDue(id)
	// Its owner may still finish it as long as nobody else took it.
	s.must(s.store.Lease(s.ctx, s.version(id), "node-2", s.now, s.now.Add(time.Hour)))
	s.wantErr(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.must(s.store.Finish(s.ctx, s.version(id), "node-2", queue.Outcome{Remove: true}))
	late := s.add("alice", 2)[0]
	s.must(s.store.Lease(s.ctx, s.version(late), owner, s.now.Add(-time.Hour), s.now.Add(-time.Minute)))
	s.must(s.store.Finish(s.ctx, s.version(late), owner, queue.Outcome{Remove: true}))
	s.wantStats(queue.Stats{})
}

func (s *suite) finishKeeps() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	want := s.get(id)
	want.Recipients[0].Status, want.Recipients[0].Reply, want.Recipients[0].Upstream = queue.Failed,
		mail.R(550, "5.1.1", "unknown"), "office"
	want.Recipients = append(want.Recipients, queue.Recipient{Recipient: mail.Recipient{To: mail.Address{Local: "c",
		Domain: "example.org"}}, Status: queue.Pending})
	want.NextAttempt, want.WaitingFor, want.Warned = s.now.Add(time.Minute), "office", true
	want.LastReply = mail.R(451, "4.7.1", "greylisted")
	want.LeaseOwner, want.LeaseUntil = "", time.Time{}
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{
		Recipients: want.Recipients, NextAttempt: want.NextAttempt, WaitingFor: want.WaitingFor, Warned: want.Warned,
		LastReply: want.LastReply,
	}))
	if err := compare(s.get(id), want); err != nil {
		s.Fatal(err)
	}
	if got, next := s.due("", 10, 10); len(got) != 0 || !next.Equal(want.NextAttempt) {
		s.Fatalf("%q is due, the next one at %v, want %v", got, next, want.NextAttempt)
	}
	if got := s.read(id); string(got) != hello {
		s.Fatalf("the content became %q", got)
	}
}

func (s *suite) finishRemoves() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true}))
	_, err := s.store.Get(s.ctx, id)
	s.wantErr(err, queue.ErrNotFound)
	_, err = s.store.Content(s.ctx, id)
	s.wantErr(err, queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.wantStats(queue.Stats{})
}

func (s *suite) finishReports() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	report := s.message(2, "")
	report.Envelope.From = mail.Address{}
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true,
		Reports: []queue.NewMessage{with(report)}}))
	s.wantDue(report.ID)
	if got := s.read(report.ID); string(got) != hello {
		s.Fatalf("the report's content is %q", got)
	}
	s.wantStats(queue.Stats{Messages: 1, Bytes: int64(len(hello))})
}

// finishAllOrNone: an outcome whose report cannot be stored is no outcome at all.
func (s *suite) finishAllOrNone() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	report := queue.NewMessage{Message: s.message(2, ""), Content: unheldContent{size: 5}}
	if err := s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true,
		Reports: []queue.NewMessage{report}}); err == nil {
		s.Fatal("a report without its content was stored")
	}
	if m := s.get(id); m.LeaseOwner != owner {
		s.Fatal("the lease was lost")
	}
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Remove: true}))
	s.wantStats(queue.Stats{})
}

func (s *suite) releaseLeases() {
	ids := s.add("alice", 1, 2, 3)
	s.lent(ids[0])
	s.lent(ids[1])
	s.must(s.store.Lease(s.ctx, s.version(ids[2]), "node-2", s.now, s.now.Add(time.Hour)))
	n, err := s.store.ReleaseLeases(s.ctx, owner)
	s.count(n, err, 2)
	s.wantDue(ids[0], ids[1])
	if m := s.get(ids[0]); m.Attempts != 1 || m.LeaseOwner != "" || !m.LeaseUntil.IsZero() {
		s.Fatalf("released: %d attempts, lease %q until %v", m.Attempts, m.LeaseOwner, m.LeaseUntil)
	}
}

func (s *suite) dueInTime() {
	for n, after := range []time.Duration{0, -time.Hour, time.Nanosecond, time.Hour} {
		m := s.message(n, "alice")
		m.NextAttempt = s.now.Add(after)
		s.must(s.store.Add(s.ctx, with(m)))
	}
	got, next := s.due("", 10, 10)
	s.same(got, []string{"0000000000000001", "0000000000000000"})
	if !next.Equal(s.now.Add(time.Nanosecond)) {
		s.Fatalf("the next one is due at %v, want a nanosecond from now", next)
	}
	// A lease is something to come back for.
	s.must(s.store.Lease(s.ctx, s.version("0000000000000002"), owner, s.now, s.now.Add(time.Minute)))
	if _, next = s.due("", 10, 10); !next.Equal(s.now.Add(time.Minute)) {
		s.Fatalf("the next one is due at %v, want the end of the lease", next)
	}
	n, err := s.store.Delete(s.ctx, named("0000000000000003"))
	s.count(n, err, 1)
	s.must(s.store.Finish(s.ctx, s.version("0000000000000002"), owner, queue.Outcome{Remove: true}))
	if _, next = s.due("", 10, 10); !next.IsZero() {
		s.Fatalf("the next one is due at %v, want none", next)
	}
}

func (s *suite) dueTakesTurns() {
	a, b, c := s.add("a", 1, 2, 3, 4), s.add("b", 11, 12), s.add("c", 21)
	got, _ := s.due("", 10, 10)
	s.same(got, []string{a[0], b[0], c[0], a[1], b[1], a[2], a[3]})
	got, _ = s.due("", 2, 10)
	s.same(got, []string{a[0], b[0], c[0], a[1], b[1]})
	got, _ = s.due("", 10, 2)
	s.same(got, []string{a[0], b[0]})
	got, _ = s.due("", 10, 4)
	s.same(got, []string{a[0], b[0], c[0], a[1]})
}

func (s *suite) dueGoesRound() {
	a, b, c := s.add("a", 1, 2), s.add("b", 11, 12), s.add("c", 21, 22)
	for after, want := range map[string][]string{
		"":   {a[0], b[0], c[0]},
		"a":  {b[0], c[0], a[0]},
		"b":  {c[0], a[0], b[0]},
		"c":  {a[0], b[0], c[0]},
		"bb": {c[0], a[0], b[0]},
		"z":  {a[0], b[0], c[0]},
	} {
		for limit := 1; limit <= 3; limit++ {
			got, _ := s.due(after, 10, limit)
			s.same(got, want[:limit])
		}
	}
}

// dueBulk: one login with very many messages starves nobody, whether more is due than asked for or not.
func (s *suite) dueBulk() {
	var bulk []queue.NewMessage
	for n := range 300 {
		bulk = append(bulk, with(s.message(n+1, "bulk")))
	}
	s.must(s.store.Add(s.ctx, bulk...))
	for n := range 5 {
		m := s.message(1000+n, fmt.Sprint("person", n))
		m.NextAttempt = s.now // due later than all of bulk
		s.must(s.store.Add(s.ctx, with(m)))
	}
	for _, limit := range []int{6, 20, 100, 1000} {
		got, _ := s.due("", 50, limit)
		people := 0
		for _, id := range got {
			if id >= "0000000000001000" {
				people++
			}
		}
		if people != 5 {
			s.Errorf("limit %d: %d of 5 people are served", limit, people)
		}
		if want := min(limit, 55); len(got) != want {
			s.Errorf("limit %d: %d messages, want %d", limit, len(got), want)
		}
	}
}

func (s *suite) dueOwnReports() {
	own, a := s.add("", 1, 2), s.add("a", 11, 12)
	got, _ := s.due("", 10, 3)
	s.same(got, []string{a[0], own[0], a[1]})
	got, _ = s.due("a", 10, 3)
	s.same(got, []string{own[0], a[0], own[1]})
	got, _ = s.due("a", 10, 1)
	s.same(got, []string{own[0]})
}

func (s *suite) postponeAndWake() {
	ids := s.add("alice", 1, 2, 3, 4, 5)
	until := s.now.Add(time.Hour)
	s.lent(ids[3])
	n, err := s.store.Hold(s.ctx, named(ids[4]), "")
	s.count(n, err, 1)
	s.must(s.store.Postpone(s.ctx, s.versions(ids[0], ids[1], ids[3], ids[4]), until, "office"))
	s.must(s.store.Postpone(s.ctx, s.versions(ids[2:3]...), until.Add(time.Hour), ""))
	if m := s.get(ids[0]); m.WaitingFor != "office" || !m.NextAttempt.Equal(until) || m.Attempts != 0 {
		s.Fatalf("waits for %q until %v after %d attempts", m.WaitingFor, m.NextAttempt, m.Attempts)
	}
	for _, id := range ids[3:] {
		if m := s.get(id); m.WaitingFor != "" || !m.NextAttempt.Equal(s.now) {
			s.Fatalf("%s is leased or held and was postponed", id)
		}
	}
	if got, next := s.due("", 10, 10); len(got) != 0 || !next.Equal(until) {
		s.Fatalf("%q is due, the next one at %v, want %v", got, next, until)
	}
	wake := func(name string, limit, want int) {
		s.Helper()
		if n, err := s.store.Wake(s.ctx, name, s.now, limit); n != want || err != nil {
			s.Fatalf("%d of %q were woken, want %d (%v)", n, name, want, err)
		}
	}
	s.waitedFor("", 10, "office")
	wake("another", 10, 0)
	wake("", 10, 0)
	wake("office", 10, 2)
	s.wantDue(ids[0], ids[1])
	wake("office", 10, 0)
	s.waitedFor("", 10)
	// What a person gave up is not put off.
	n, err = s.store.Bounce(s.ctx, named(ids[0]), s.now)
	s.count(n, err, 1)
	s.must(s.store.Postpone(s.ctx, s.versions(ids[:1]...), until, "office"))
	s.wantDue(ids[0], ids[1])
}

func (s *suite) waitedFor(after string, limit int, want ...string) {
	s.Helper()
	names, err := s.store.WaitedFor(s.ctx, after, limit)
	s.must(err)
	s.same(names, want)
}

// wakeTakesTurns: who has much waiting does not keep others from being woken, and nothing that waits for something else
// is.
func (s *suite) wakeTakesTurns() {
	a, b, own := s.add("a", 1, 2, 3, 4, 5), s.add("b", 11, 12), s.add("", 21)
	other := s.add("b", 31)
	held := s.add("c", 41)
	until := s.now.Add(time.Hour)
	s.must(s.store.Postpone(s.ctx, s.versions(slices.Concat(a, b, own, held)...), until, "office"))
	s.must(s.store.Postpone(s.ctx, s.versions(other...), until, "office, backup"))
	n, err := s.store.Hold(s.ctx, named(held[0]), "")
	s.count(n, err, 1)
	s.waitedFor("", 10, "office", "office, backup")
	s.waitedFor("", 1, "office")
	s.waitedFor("office", 10, "office, backup")
	var due []string
	for _, next := range [][]string{{own[0], a[0], b[0]}, {a[1], b[1]}, {a[2], a[3], a[4]}} {
		got, err := s.store.Wake(s.ctx, "office", s.now, len(next))
		if err != nil || got != len(next) {
			s.Fatalf("%d were woken, want %d (%v)", got, len(next), err)
		}
		due = append(due, next...)
		now, _ := s.due("", 10, 10)
		slices.Sort(now)
		slices.Sort(due)
		s.same(now, due)
	}
	if got, err := s.store.Wake(s.ctx, "office", s.now, 3); got != 0 || err != nil {
		s.Fatalf("%d more were woken (%v)", got, err)
	}
	n, err = s.store.Release(s.ctx, queue.Filter{}, s.now)
	s.count(n, err, 1)
	if m := s.get(held[0]); m.WaitingFor != "" {
		s.Fatalf("released and waits for %q", m.WaitingFor)
	}
}

func (s *suite) stats() {
	s.wantStats(queue.Stats{})
	ids := s.add("alice", 1, 2, 3)
	s.lent(ids[0])
	_, err := s.store.Hold(s.ctx, named(ids[1]), "")
	s.must(err)
	first := s.message(1, "")
	size := int64(len(hello))
	s.wantStats(queue.Stats{Messages: 3, Held: 1, Leased: 1, Bytes: 3 * size, Oldest: first.Received})
	s.must(s.store.Finish(s.ctx, s.version(ids[0]), owner, queue.Outcome{Remove: true}))
	n, err := s.store.Delete(s.ctx, named(ids[1]))
	s.count(n, err, 1)
	s.wantStats(queue.Stats{Messages: 1, Bytes: size, Oldest: first.Received.Add(2 * time.Microsecond)})
}
