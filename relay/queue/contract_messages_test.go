package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// full is a message with every field set to something that is not its zero value.
func (s *suite) full() *queue.Message {
	m := s.message(1, "alice")
	m.Groups = []string{"staff", "büro"}
	m.Envelope = mail.Envelope{
		From: mail.Address{Local: `a"b c`, Domain: "example.com"}, Body: mail.Body8Bit, UTF8: true, Size: 1 << 40,
		Ret: mail.RetHeaders, EnvID: "env;id=1",
	}
	m.Recipients = []queue.Recipient{
		{
			Recipient: mail.Recipient{To: mail.Address{Local: "bob", Domain: "example.net"},
				Notify: mail.NotifyFailure | mail.NotifyDelay, ORcpt: "rfc822;b@example.org"},
			Status: queue.Failed, Reply: mail.R(550, "5.1.1", "no such user\nreally"), Upstream: "office",
			Relayed: true, Doubts: 2,
		},
		{Recipient: mail.Recipient{To: mail.Address{Local: "jürgen", Domain: "bücher.example"},
			Notify: mail.NotifyNever}, Status: queue.Pending},
		{Recipient: mail.Recipient{To: mail.Address{Local: "x", Domain: "[192.0.2.1]"}}, Status: queue.Delivered,
			Reply: mail.R(250, "2.0.0", "ok")},
	}
	m.EightBit, m.Attempts, m.WaitingFor, m.Warned, m.Held, m.HoldReason = true, 7, "office", true, true,
		"over the limit"
	m.Bounce, m.LastReply = true, mail.R(451, "4.3.0", "later, \x00 please")
	m.LeaseOwner, m.LeaseUntil = owner, s.now.Add(time.Minute)
	return m
}

func (s *suite) roundTrip() {
	for _, want := range []*queue.Message{s.full(), {ID: "plain", Size: int64(len(hello))}} {
		s.must(s.store.Add(s.ctx, with(want)))
		if err := compare(s.get(want.ID), want); err != nil {
			s.Fatal(err)
		}
		list, err := s.store.List(s.ctx, named(want.ID))
		s.must(err)
		if len(list) != 1 {
			s.Fatalf("%d messages are listed, want 1", len(list))
		}
		if err := compare(list[0], want); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *suite) addAllOrNone() {
	s.add("alice", 2)
	if err := s.store.Add(s.ctx, with(s.message(1, "alice")), with(s.message(2, "alice")),
		with(s.message(3, "alice"))); err == nil {
		s.Fatal("a second message with the same ID was added")
	}
	s.wantDue("0000000000000002")
	s.wantStats(queue.Stats{Messages: 1, Bytes: int64(len(hello))})
	if got := s.read("0000000000000002"); string(got) != hello {
		s.Fatalf("the first message has the content %q", got)
	}
}

func (s *suite) addLeased() {
	m := s.message(1, "alice")
	m.LeaseOwner, m.LeaseUntil = owner, s.now.Add(time.Minute)
	s.must(s.store.Add(s.ctx, with(m)))
	got := s.get(m.ID)
	if got.Attempts != 1 || got.LeaseOwner != owner || !got.LeaseUntil.Equal(m.LeaseUntil) {
		s.Fatalf("got %d attempts, lease %q until %v", got.Attempts, got.LeaseOwner, got.LeaseUntil)
	}
	s.wantDue()
}

func (s *suite) addWrongContent() {
	broken := errors.New("broken disk")
	for name, c := range map[string]mail.Content{
		"short":  unheldContent{b: []byte(hello), size: int64(len(hello)) + 1},
		"long":   unheldContent{b: []byte(hello), size: int64(len(hello)) - 1},
		"broken": unheldContent{b: []byte(hello), size: int64(len(hello)) + 1, err: broken},
	} {
		m := s.message(1, "alice")
		err := s.store.Add(s.ctx, queue.NewMessage{Message: m, Content: c})
		if err == nil {
			s.Errorf("%s: a content of another size than it says was stored", name)
		}
		if name == "broken" {
			s.wantErr(err, broken)
		}
	}
	s.wantStats(queue.Stats{})
}

func (s *suite) contentSizes() {
	random := rand.NewChaCha8([32]byte{1})
	for i, size := range []int{0, 1, 4096, 64<<10 - 1, 64 << 10, 128 << 10, 128<<10 + 1, 256 << 10, 1<<20 + 17} {
		b := make([]byte, size)
		random.Read(b)
		for j, c := range []mail.Content{mail.BytesContent(b), unheldContent{b: b, size: int64(size)}} {
			m := s.message(10*i+j, "alice")
			m.Size = int64(size)
			s.must(s.store.Add(s.ctx, queue.NewMessage{Message: m, Content: c}))
			if got := s.read(m.ID); !bytes.Equal(got, b) {
				s.Fatalf("content of %d octets came back as %d others", size, len(got))
			}
			if got := s.get(m.ID).Size; got != int64(size) {
				s.Fatalf("size %d came back as %d", size, got)
			}
		}
	}
}

// manyReaders also finishes the message while it is read: no reader may take the octets of another
// message, or a part, for the whole.
func (s *suite) manyReaders() {
	b := []byte(strings.Repeat("0123456789abcde\n", 40<<10))
	m := s.message(1, "alice")
	s.must(s.store.Add(s.ctx, queue.NewMessage{Message: m, Content: mail.BytesContent(b)}))
	c, err := s.store.Content(s.ctx, m.ID)
	s.must(err)
	var readers sync.WaitGroup
	var over atomic.Bool
	for range 4 {
		readers.Go(func() {
			for !over.Load() {
				got, err := readAll(c)
				if err != nil {
					return // gone
				}
				if !bytes.Equal(got, b) {
					s.Errorf("read %d octets of %d, without an error", len(got), len(b))
					return
				}
			}
		})
	}
	s.lent(m.ID)
	s.must(s.store.Finish(s.ctx, s.version(m.ID), owner, queue.Outcome{Remove: true}))
	other := bytes.Repeat([]byte("x"), len(b))
	s.must(s.store.Add(s.ctx, queue.NewMessage{Message: s.message(2, "alice"), Content: mail.BytesContent(other)}))
	if _, err := s.store.Content(s.ctx, m.ID); !errors.Is(err, queue.ErrNotFound) {
		s.Errorf("the content of a finished message: %v", err)
	}
	over.Store(true)
	readers.Wait()
}

// contentOfGone: a reader of a message that is finished meanwhile gets what is left of it, or an error; never
// the octets of the message that took its place, and never a clean end.
func (s *suite) contentOfGone() {
	b := bytes.Repeat([]byte("a"), 1<<20)
	m := s.message(1, "alice")
	s.must(s.store.Add(s.ctx, queue.NewMessage{Message: m, Content: mail.BytesContent(b)}))
	c, err := s.store.Content(s.ctx, m.ID)
	s.must(err)
	r, err := c.Open()
	s.must(err)
	defer r.Close()
	one := make([]byte, 1)
	_, err = r.Read(one)
	s.must(err)
	s.lent(m.ID)
	s.must(s.store.Finish(s.ctx, s.version(m.ID), owner, queue.Outcome{Remove: true}))
	other := bytes.Repeat([]byte("b"), len(b))
	s.must(s.store.Add(s.ctx, queue.NewMessage{Message: s.message(2, "alice"), Content: mail.BytesContent(other)}))
	rest, err := io.ReadAll(r)
	if bytes.ContainsRune(rest, 'b') {
		s.Error("octets of another message were read")
	}
	if err == nil && len(rest) != len(b)-1 {
		s.Errorf("%d octets of %d and then a clean end", len(rest)+1, len(b))
	}
}

func (s *suite) notFound() {
	_, err := s.store.Get(s.ctx, "none")
	s.wantErr(err, queue.ErrNotFound)
	_, err = s.store.Content(s.ctx, "none")
	s.wantErr(err, queue.ErrNotFound)
	s.wantErr(s.store.Lease(s.ctx, s.version("none"), owner, s.now, s.now.Add(time.Hour)), queue.ErrNotFound)
	s.wantErr(s.store.Extend(s.ctx, s.version("none"), owner, s.now.Add(time.Hour)), queue.ErrNotFound)
	s.wantErr(s.store.Finish(s.ctx, s.version("none"), owner, queue.Outcome{Remove: true}), queue.ErrNotFound)
	s.must(s.store.Postpone(s.ctx, s.versions("none"), s.now, ""))
	n, err := s.store.Delete(s.ctx, named("none"))
	s.count(n, err, 0)
}

func (s *suite) contextEnds() {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	s.wantErr(s.store.Add(ctx, with(s.message(1, "alice"))), context.Canceled)
	_, err := s.store.List(ctx, queue.Filter{})
	s.wantErr(err, context.Canceled)
	s.wantStats(queue.Stats{})
}

// concurrent lets submitters, deliverers and a person at it at once: every message is delivered once
// or deleted once, and nothing is left.
func (s *suite) concurrent() {
	const submitters, each = 8, 25
	var submitting, delivering sync.WaitGroup
	gone := make(chan string, submitters*each)
	stop := make(chan struct{})
	for w := range submitters {
		submitting.Go(func() {
			for i := range each {
				m := s.message(w*each+i+1, fmt.Sprint("login", w))
				if err := s.store.Add(s.ctx, with(m)); err != nil {
					s.Error(err)
				}
			}
		})
	}
	for w := range 4 {
		delivering.Go(func() { s.deliver(fmt.Sprint("node-", w), gone, stop) })
	}
	submitting.Wait()
	seen := map[string]bool{}
	for len(seen) < submitters*each {
		select {
		case id := <-gone:
			if seen[id] {
				s.Errorf("%s was finished twice", id)
			}
			seen[id] = true
		case <-time.After(20 * time.Second):
			s.Errorf("only %d of %d messages were finished", len(seen), submitters*each)
			close(stop)
			delivering.Wait()
			return
		}
	}
	close(stop)
	delivering.Wait()
	s.wantStats(queue.Stats{})
}

func (s *suite) deliver(owner string, gone chan<- string, stop <-chan struct{}) {
	after := ""
	for {
		select {
		case <-stop:
			return
		default:
		}
		due, _, err := s.store.Due(s.ctx, s.now, after, 4, 10)
		if err != nil {
			s.Error(err)
			return
		}
		for _, m := range due {
			after = m.Login
			err := s.store.Lease(s.ctx, s.version(m.ID), owner, s.now, s.now.Add(time.Hour))
			if errors.Is(err, queue.ErrNotFound) {
				continue // another one was faster
			}
			if err == nil {
				err = s.store.Finish(s.ctx, s.version(m.ID), owner, queue.Outcome{Remove: true})
			}
			if err != nil {
				s.Error(err)
				return
			}
			gone <- m.ID
		}
	}
}
