package queue_test

import (
	"time"

	"postern/mail"
	"postern/relay/queue"
)

func (s *suite) hold() {
	ids := s.add("alice", 1, 2)
	n, err := s.store.Hold(s.ctx, named(ids[0]), "looks odd")
	s.count(n, err, 1)
	n, err = s.store.Hold(s.ctx, named(ids[0]), "again")
	s.count(n, err, 0)
	if m := s.get(ids[0]); !m.Held {
		s.Fatal("it is not held")
	}
	s.wantDue(ids[1])
	s.wantErr(s.store.Lease(s.ctx, s.version(ids[0]), owner, s.now, s.now.Add(time.Hour)), queue.ErrNotFound)
	later := s.now.Add(-time.Second)
	var changed []string
	all := queue.Filter{Changed: func(ids []string) { changed = append(changed, ids...) }}
	n, err = s.store.Release(s.ctx, all, later)
	s.count(n, err, 1)
	n, err = s.store.Release(s.ctx, all, later)
	s.count(n, err, 0)
	s.same(changed, ids[:1])
	if m := s.get(ids[0]); m.Held || m.HoldReason != "" || !m.NextAttempt.Equal(later) {
		s.Fatalf("released: held %v for %q, next at %v", m.Held, m.HoldReason, m.NextAttempt)
	}
	s.wantDue(ids[0], ids[1])
	s.wantStats(queue.Stats{Messages: 2, Bytes: 2 * int64(len(hello))})
}

func (s *suite) holdKeepsOutcome() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	n, err := s.store.Hold(s.ctx, named(id), "stop")
	s.count(n, err, 1)
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Recipients: s.message(1, "").Recipients,
		NextAttempt: s.now,
		LastReply: mail.R(451, "4.0.0", "no")}))
	if m := s.get(id); !m.Held || m.HoldReason != "stop" || m.LastReply.Code != 451 {
		s.Fatalf("held %v for %q after %v", m.Held, m.HoldReason, m.LastReply)
	}
	s.wantDue()
	s.wantStats(queue.Stats{Messages: 1, Held: 1, Bytes: int64(len(hello))})
}

func (s *suite) retry() {
	ids := s.add("alice", 1, 2, 3)
	s.must(s.store.Postpone(s.ctx, s.versions(ids...), s.now.Add(time.Hour), "office"))
	n, err := s.store.Hold(s.ctx, named(ids[2]), "")
	s.count(n, err, 1)
	n, err = s.store.Retry(s.ctx, queue.Filter{}, s.now)
	s.count(n, err, 2)
	s.wantDue(ids[0], ids[1])
	if m := s.get(ids[0]); m.WaitingFor != "" || m.Attempts != 0 {
		s.Fatalf("waits for %q after %d attempts", m.WaitingFor, m.Attempts)
	}
}

func (s *suite) bounce() {
	ids := s.add("alice", 1, 2)
	s.must(s.store.Postpone(s.ctx, s.versions(ids...), s.now.Add(time.Hour), "office"))
	_, err := s.store.Hold(s.ctx, named(ids[0]), "")
	s.must(err)
	n, err := s.store.Bounce(s.ctx, named(ids[0]), s.now)
	s.count(n, err, 1)
	if m := s.get(ids[0]); !m.Bounce || m.Held {
		s.Fatalf("bounce %v, held %v", m.Bounce, m.Held)
	}
	s.wantDue(ids[0])
	s.wantStats(queue.Stats{Messages: 2, Bytes: 2 * int64(len(hello))})
}

// bounceDuringAttempt: the outcome of the attempt that runs does not put off what a person asked for.
func (s *suite) bounceDuringAttempt() {
	id := s.add("alice", 1)[0]
	s.lent(id)
	n, err := s.store.Bounce(s.ctx, named(id), s.now)
	s.count(n, err, 1)
	s.wantDue()
	s.must(s.store.Finish(s.ctx, s.version(id), owner, queue.Outcome{Recipients: s.message(1, "").Recipients,
		NextAttempt: s.now.Add(time.Hour)}))
	s.wantDue(id)
	if !s.get(id).Bounce {
		s.Fatal("the wish to give it up was lost")
	}
}

func (s *suite) delete() {
	ids := s.add("alice", 1, 2, 3)
	s.lent(ids[0])
	n, err := s.store.Delete(s.ctx, queue.Filter{})
	s.count(n, err, 2)
	_, err = s.store.Content(s.ctx, ids[1])
	s.wantErr(err, queue.ErrNotFound)
	s.wantStats(queue.Stats{Messages: 1, Leased: 1, Bytes: int64(len(hello))})
	s.must(s.store.Finish(s.ctx, s.version(ids[0]), owner, queue.Outcome{Remove: true}))
}

func (s *suite) filters() {
	m := s.message(1, "alice")
	s.must(s.store.Add(s.ctx, with(m)))
	m = s.message(2, "bob")
	m.Envelope.From = mail.Address{Local: "Bob", Domain: "example.org"}
	m.Recipients = append(m.Recipients, queue.Recipient{Recipient: mail.Recipient{To: mail.Address{Local: "carol",
		Domain: "example.org"}}, Status: queue.Pending})
	s.must(s.store.Add(s.ctx, with(m)))
	m = s.message(3, "")
	m.Envelope.From = mail.Address{}
	m.Held = true
	s.must(s.store.Add(s.ctx, with(m)))
	const one, two, three = "0000000000000001", "0000000000000002", "0000000000000003"
	for _, test := range []struct {
		f    queue.Filter
		want []string
	}{
		{queue.Filter{}, []string{one, two, three}},
		{queue.Filter{IDs: []string{three, one, "none", one}}, []string{one, three}},
		{queue.Filter{IDs: []string{one, two}, Login: "bob"}, []string{two}},
		{queue.Filter{Login: "alice"}, []string{one}},
		{queue.Filter{From: "Bob@example.org"}, []string{two}},
		{queue.Filter{From: "*@example.com"}, []string{one}},
		{queue.Filter{To: "carol@example.org"}, []string{two}},
		{queue.Filter{To: "*@example.net"}, []string{one, two, three}},
		{queue.Filter{To: "*@ple.net"}, nil},
		{queue.Filter{To: "ob@example.net"}, nil},
		{queue.Filter{Held: true}, []string{three}},
		{queue.Filter{After: one}, []string{two, three}},
		{queue.Filter{After: one, Limit: 1}, []string{two}},
		{queue.Filter{Limit: 2}, []string{one, two}},
	} {
		got, err := s.store.List(s.ctx, test.f)
		s.must(err)
		if g := ids(got); len(g)+len(test.want) > 0 {
			s.same(g, test.want)
		}
	}
}

func (s *suite) listPages() {
	all := s.add("alice", 1, 2, 3, 4, 5)
	var got []string
	for after := ""; ; {
		page, err := s.store.List(s.ctx, queue.Filter{After: after, Limit: 2})
		s.must(err)
		got = append(got, ids(page)...)
		if len(page) < 2 {
			break
		}
		after = got[len(got)-1]
	}
	s.same(got, all)
}

// actionsOverMany: an action over more messages than fit into one transaction.
func (s *suite) actionsOverMany() {
	const many = 700
	var news []queue.NewMessage
	for n := range many {
		login := "alice"
		if n%2 == 1 {
			login = "bob"
		}
		news = append(news, with(s.message(n+1, login)))
	}
	s.must(s.store.Add(s.ctx, news...))
	n, err := s.store.Hold(s.ctx, queue.Filter{Login: "alice", Limit: 300}, "")
	s.count(n, err, 300)
	n, err = s.store.Release(s.ctx, queue.Filter{}, s.now)
	s.count(n, err, 300)
	var all []string
	for _, m := range news {
		all = append(all, m.Message.ID)
	}
	s.must(s.store.Postpone(s.ctx, s.versions(all...), s.now.Add(time.Hour), "office"))
	if n, err := s.store.Wake(s.ctx, "office", s.now, 2*many); n != many || err != nil {
		s.Fatalf("%d of %d were woken (%v)", n, many, err)
	}
	n, err = s.store.Delete(s.ctx, queue.Filter{Login: "bob"})
	s.count(n, err, many/2)
	s.wantStats(queue.Stats{Messages: many / 2, Bytes: many / 2 * int64(len(hello))})
}
