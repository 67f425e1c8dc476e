package store

import "context"

// Record is an entry of the audit that is written in the transaction of what it is about. It is of one operation and
// one goroutine.
type Record struct {
	// Entry is the entry as it is now. It may be called more than once, and must not call the store.
	Entry func() AuditEntry

	n    int64      // of the entry in the audit; 0: it is not there yet
	last AuditEntry // as it stands there
}

type recordKey struct{}

// Recorded returns a context whose first transaction that changes something for a person has the entry in it: both are
// there, or neither. What the program keeps for itself (secrets, trace events) does not count.
func Recorded(ctx context.Context, r *Record) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// write runs one urgent write, with the entry of its context unless it changes nothing.
func (s *Store) write(ctx context.Context, run func(*tx) error) error {
	r, ok := ctx.Value(recordKey{}).(*Record)
	if !ok || r.n != 0 {
		return s.writer.do(ctx, &op{run: run})
	}
	var n int64
	var e AuditEntry
	err := s.writer.do(ctx, &op{run: func(t *tx) (err error) {
		before := t.TotalChanges()
		if n, err = 0, run(t); err != nil || t.TotalChanges() == before {
			return err
		}
		e = r.Entry()
		n, err = putAudit(t, e)
		return wrap(err, "write the audit")
	}})
	if err == nil && n != 0 {
		r.n, r.last = n, e
	}
	return err
}

// WriteRecord writes the entry as it is now, in place of what stands there. It is durable when it returns nil.
func (s *Store) WriteRecord(ctx context.Context, r *Record) error {
	n, e := int64(0), r.Entry()
	if r.n != 0 && e == r.last {
		return nil
	}
	err := s.writer.do(ctx, &op{run: func(t *tx) (err error) {
		if n = r.n; n == 0 {
			n, err = putAudit(t, e)
			return err
		}
		return t.Run("UPDATE audit SET subject = ?, detail = ?, outcome = ? WHERE n = ?", auditable(e.Subject),
			auditable(e.Detail), auditable(e.Outcome), n)
	}})
	if err == nil {
		r.n, r.last = n, e
	}
	return wrap(err, "write the audit")
}
