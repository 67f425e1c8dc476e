package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"

	"postern/mail"
	"postern/relay/store"
)

// Audit is who did what.
type Audit struct{ *desk }

// List returns a page of the audit, the newest first.
func (a Audit) List(ctx context.Context, by Actor, q store.AuditQuery) ([]store.AuditEntry, error) {
	if err := by.May(SeeAudit); err != nil {
		return nil, err
	}
	return a.Store.Audit(ctx, q)
}

// Refused records that somebody may not do something that was refused before it was asked for here.
func (a Audit) Refused(ctx context.Context, by Actor, op Operation) error {
	return a.ledger.refusal(ctx, by, op, "")
}

// Ledger does what people ask for, if they may, and keeps in the audit that they did, or that it was refused. Nothing
// is done whose record cannot be written.
type Ledger struct {
	store   *store.Store
	now     func() time.Time
	refused *expirable.LRU[string, struct{}] // who was refused what lately: once an hour is enough for the audit
}

// maxRefused bounds how many refusals are remembered.
const maxRefused = 1024

// NewLedger returns one that writes to a store.
func NewLedger(s *store.Store, now func() time.Time) *Ledger {
	return &Ledger{s, now, expirable.NewLRU[string, struct{}](maxRefused, nil, time.Hour)}
}

// Do does op, if by may. do sets detail before it changes something; its context has the record, which goes into the
// first transaction that changes something. What is more than that transaction (Operation.Staged) is recorded as begun
// before, and as what became of it afterwards. What changes nothing is recorded when it has ended.
func (l *Ledger) Do(ctx context.Context, by Actor, op Operation, subject string,
	do func(ctx context.Context, detail *string) error) error {
	err := by.May(op)
	switch {
	case errors.Is(err, ErrStrong): // they are asked for it, and come again
		return err
	case err != nil:
		return errors.Join(err, l.refusal(ctx, by, op, subject))
	}
	var detail string
	if !op.Audit {
		return do(ctx, &detail)
	}
	entry := l.entry(by, op, subject)
	r := &store.Record{Entry: func() store.AuditEntry {
		entry.Detail = mail.Printable(mail.Cut(detail, maxOutcome))
		return entry
	}}
	if op.Staged {
		entry.Outcome = store.AuditBegun
		if err := l.store.WriteRecord(ctx, r); err != nil {
			return fmt.Errorf("%s was not done: %w", op.Name, err)
		}
	}
	err = do(store.Recorded(ctx, r), &detail)
	entry.Outcome = store.AuditDone
	if err != nil {
		entry.Outcome = mail.Printable(mail.Cut(err.Error(), maxOutcome))
	}
	return errors.Join(err, l.store.WriteRecord(context.WithoutCancel(ctx), r))
}

// refusal records that somebody may not do something, once an hour for each operation: whoever asks again and again
// would otherwise push out what was done.
func (l *Ledger) refusal(ctx context.Context, by Actor, op Operation, subject string) error {
	key := string(by.Channel) + "\x00" + by.Name + "\x00" + op.Name
	if !op.Audit || l.refused.Contains(key) {
		return nil
	}
	e := l.entry(by, op, subject)
	e.Detail, e.Outcome = "more of the same within an hour are not kept", store.AuditRefused
	err := l.store.AppendAudit(context.WithoutCancel(ctx), e)
	if err == nil {
		l.refused.Add(key, struct{}{})
	}
	return err
}

// maxOutcome bounds what the audit has of an error, in octets.
const maxOutcome = 300

// entry is what the audit has of an operation that is done.
func (l *Ledger) entry(by Actor, op Operation, subject string) store.AuditEntry {
	return store.AuditEntry{Time: l.now(), Actor: by.Name, Channel: string(by.Channel), Client: by.Client,
		Operation: op.Name, Subject: mail.Printable(mail.Cut(subject, maxNamed)), Outcome: store.AuditDone}
}
