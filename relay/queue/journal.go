package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"postern/mail"
)

// Journal remembers what upstreams answered between an answer and the commit of its outcome, so that a process that is
// killed in between does not send again what was taken. It must outlive the process; it need not outlive the machine,
// for which the store is there, and so it costs no sync.
type Journal interface {
	// Note keeps what an attempt brought. forget is called once when its outcome is committed, or its message gone. An
	// error means that nothing is kept.
	Note(n Note) (forget func(), err error)
	// Notes returns what was noted and not forgotten, by former lives too, and possibly more: see Note.
	Notes() ([]Note, error)
	// Clear forgets what former lives noted.
	Clear() error
}

// Note is what an attempt brought. All of it holds for the attempt of that number only, while its lease is there;
// deliveries hold for good.
type Note struct {
	ID      string        `json:"id"`
	Attempt int           `json:"attempt"`
	Results []mail.Result `json:"answers"`
}

// journal notes answers in a Journal.
type journal struct {
	Journal
	log *slog.Logger
}

// merge joins the notes of one attempt: the later one knows better.
func merge(notes []Note) (merged []Note) {
	type attempt struct {
		id     string
		number int
	}
	index := make(map[attempt]int)
	for _, n := range notes {
		i, ok := index[attempt{n.ID, n.Attempt}]
		if !ok {
			index[attempt{n.ID, n.Attempt}] = len(merged)
			merged = append(merged, n)
			continue
		}
		merged[i].Results = append(merged[i].Results, n.Results...) // complete takes the last of each recipient
	}
	return merged
}

// recall records the outcomes that a former life noted and did not come to commit.
func (a *attempts) recall(ctx context.Context) error {
	notes, err := a.journal.Notes()
	if err != nil {
		return err
	}
	recorded := 0
	for _, n := range merge(notes) {
		did, err := a.recallOne(ctx, n)
		if err != nil {
			return fmt.Errorf("record the outcome of %s: %w", n.ID, err)
		}
		if did {
			recorded++
		}
	}
	if recorded > 0 {
		a.log.Info("outcomes of a former life are recorded", "messages", recorded)
	}
	return a.journal.Clear()
}

// recallOne reports whether a note was of use: most outcomes were committed.
func (a *attempts) recallOne(ctx context.Context, n Note) (bool, error) {
	m, err := a.store.Get(ctx, n.ID)
	if err == nil {
		err = ErrNotFound
		if m.LeaseOwner == a.sched.owner && m.Attempts == n.Attempt {
			err = a.recallOwn(ctx, m, n.Results)
		}
		if errors.Is(err, ErrNotFound) { // another node has had it since, or a person was faster
			err = a.late(ctx, n.ID, n.Results, false)
		}
	}
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// recallOwn records the outcome of an attempt whose lease is there still.
func (a *attempts) recallOwn(ctx context.Context, m *Message, results []mail.Result) error {
	now := time.Now()
	results = complete(m, results)
	dec := a.decider.decide(now, m, nil, results)
	if err := a.store.Finish(ctx, m.Version(), a.sched.owner, dec.out); err != nil {
		return err
	}
	a.trace.results(now, m, results, dec, 0)
	a.trace.reports(now, m, dec)
	return nil
}
