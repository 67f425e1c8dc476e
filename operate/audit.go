package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// act does what somebody asks for, if they may, and keeps in the audit that they did, or that it was refused.
func (d *desk) act(ctx context.Context, by Actor, op Operation, subject string,
	do func() (detail string, err error)) error {
	err := by.May(op)
	switch {
	case errors.Is(err, ErrStrong): // they are asked for it, and come again
		return err
	case err != nil:
		return errors.Join(err, d.auditRefusal(ctx, by, op, subject))
	}
	detail, err := do()
	outcome := store.AuditDone
	if err != nil {
		outcome = mail.Printable(mail.Cut(err.Error(), maxOutcome))
	}
	return errors.Join(err, d.audit(ctx, by, op, subject, detail, outcome))
}

// Refused records that somebody may not do something that was refused before it was asked for here.
func (a Audit) Refused(ctx context.Context, by Actor, op Operation) error {
	return a.auditRefusal(ctx, by, op, "")
}

// auditRefusal records that somebody may not do something, once an hour for each operation: whoever asks again and
// again would otherwise push out what was done.
func (d *desk) auditRefusal(ctx context.Context, by Actor, op Operation, subject string) error {
	key := string(by.Channel) + "\x00" + by.Name + "\x00" + op.Name
	if d.refused.Contains(key) {
		return nil
	}
	err := d.audit(ctx, by, op, subject, "more of the same within an hour are not kept", store.AuditRefused)
	if err == nil {
		d.refused.Add(key, struct{}{})
	}
	return err
}

// maxOutcome bounds what the audit has of an error, in octets.
const maxOutcome = 300

// audit writes an entry. What was done stays done where that fails.
func (d *desk) audit(ctx context.Context, by Actor, op Operation, subject, detail, outcome string) error {
	if !op.Audit {
		return nil
	}
	err := d.Store.AppendAudit(context.WithoutCancel(ctx), store.AuditEntry{Time: time.Now(), Actor: by.Name,
		Channel: string(by.Channel), Client: by.Client, Operation: op.Name,
		Subject: mail.Printable(mail.Cut(subject, maxNamed)), Detail: mail.Printable(mail.Cut(detail, maxOutcome)),
		Outcome: outcome})
	if err != nil {
		return fmt.Errorf("the audit of %s could not be written: %w", op.Name, err)
	}
	return nil
}
