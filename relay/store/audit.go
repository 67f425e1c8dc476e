package store

import (
	"cmp"
	"context"
	"math"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/store/internal/db"
)

// AuditEntry is something that somebody did, or was not let do.
type AuditEntry struct {
	N         int64     `json:"n"` // unique, in the order of writing: the cursor of AuditQuery. AppendAudit sets it
	Time      time.Time `json:"time"`
	Actor     string    `json:"actor"`
	Channel   string    `json:"channel"` // as operate.Channel spells it
	Client    string    `json:"client,omitempty"`
	Operation string    `json:"operation"`
	Subject   string    `json:"subject,omitempty"` // what it was done to
	Detail    string    `json:"detail,omitempty"`
	Outcome   string    `json:"outcome"` // AuditDone, AuditRefused, AuditBegun, or what went wrong
}

// Outcomes of an AuditEntry. AuditBegun stays where the program ended meanwhile: nobody knows how far it came.
const (
	AuditDone    = "done"
	AuditRefused = "refused"
	AuditBegun   = "begun"
)

// schemaAuditTime keeps the time of an entry apart from its place: a clock that was wrong for a while misdates what was
// written meanwhile, and nothing behind it.
const schemaAuditTime = `
ALTER TABLE audit ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
UPDATE audit SET at = n;
CREATE INDEX audit_at ON audit (at);
`

// Bounds of the audit.
const (
	auditText  = 1000      // octets of each text of an entry; what is longer is cut
	maxAudit   = 1_000_000 // entries kept however young they are; some 300 MB
	auditBatch = 100       // entries that one transaction removes
	auditPage  = 100       // entries of a page when nobody says how many
	// LeastAudit is how long entries are kept at least, whatever is asked for: nobody shortens what they did.
	LeastAudit = 365 * 24 * time.Hour
)

// AppendAudit writes entries down. They are durable when it returns nil.
func (s *Store) AppendAudit(ctx context.Context, entries ...AuditEntry) error {
	err := s.writer.do(ctx, &op{run: func(t *tx) error {
		for _, e := range entries {
			if _, err := putAudit(t, e); err != nil {
				return err
			}
		}
		return nil
	}})
	return wrap(err, "write the audit")
}

// putAudit writes an entry behind all others and returns its place.
func putAudit(t *tx, e AuditEntry) (n int64, err error) {
	n, _, err = t.Int(`INSERT INTO audit VALUES (max(?, coalesce((SELECT max(n) + 1 FROM audit), 1)),
		?, ?, ?, ?, ?, ?, ?, ?) RETURNING n`, unixNano(e.Time), auditable(e.Actor), auditable(e.Channel),
		auditable(e.Client), auditable(e.Operation), auditable(e.Subject), auditable(e.Detail),
		auditable(e.Outcome), unixNano(e.Time))
	return n, err
}

// auditable makes a text one that can be kept and shown.
func auditable(s string) string {
	if len(s) > auditText {
		s = strings.ToValidUTF8(s[:auditText], "") + "…"
	}
	return mail.Printable(s)
}

// AuditQuery chooses entries; what is zero or empty does not matter.
type AuditQuery struct {
	Since, Until time.Time // Until is not in it
	Actor        string    // exactly
	Operation    string    // exactly
	Before       int64     // N of the last entry of the page before
	Limit        int       // 0: 100
}

// Audit returns a page of entries, the newest first.
func (s *Store) Audit(ctx context.Context, q AuditQuery) ([]AuditEntry, error) {
	until, before := int64(math.MaxInt64), int64(math.MaxInt64)
	if !q.Until.IsZero() {
		until = unixNano(q.Until)
	}
	if q.Before > 0 {
		before = q.Before
	}
	query, args := "SELECT n, actor, channel, client, operation, subject, detail, outcome, at FROM audit WHERE "+
		"at >= ? AND at < ? AND n < ?", []any{unixNano(q.Since), until, before}
	if q.Actor != "" {
		query, args = query+" AND actor = ?", append(args, q.Actor)
	}
	if q.Operation != "" {
		query, args = query+" AND operation = ?", append(args, q.Operation)
	}
	entries, err := readAll(ctx, s.lookups, func(row db.Row) (AuditEntry, error) {
		return AuditEntry{row.Int(0), fromNano(row.Int(8)), row.Text(1), row.Text(2), row.Text(3), row.Text(4),
			row.Text(5), row.Text(6), row.Text(7)}, nil
	}, query+" ORDER BY n DESC LIMIT ?", append(args, cmp.Or(q.Limit, auditPage))...)
	return entries, wrap(err, "read the audit")
}

// PruneAudit removes entries from before a moment, but none that is younger than LeastAudit, and the oldest where there
// are more than a million. It writes in small transactions and returns how many it removed.
func (s *Store) PruneAudit(ctx context.Context, before, now time.Time) (total int64, err error) {
	if floor := now.Add(-LeastAudit); before.After(floor) {
		before = floor
	}
	total, err = s.pruneAudit(ctx, before, maxAudit)
	return total, wrap(err, "prune the audit")
}

func (s *Store) pruneAudit(ctx context.Context, before time.Time, most int64) (int64, error) {
	last := int64(math.MinInt64) // the newest of those that are too many
	err := s.readers.read(ctx, func(conn db.Conn) error {
		n, over, err := conn.Int("SELECT n FROM audit ORDER BY n DESC LIMIT 1 OFFSET ?", most)
		if over {
			last = n
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	old, err := s.removeAudit(ctx, "at < ? ORDER BY at", unixNano(before))
	if err != nil {
		return old, err
	}
	many, err := s.removeAudit(ctx, "n <= ? ORDER BY n", last)
	return old + many, err
}

func (s *Store) removeAudit(ctx context.Context, which string, bound int64) (int64, error) {
	return s.inBatches(ctx, auditBatch, func(t *tx) (int64, error) {
		err := t.Run("DELETE FROM audit WHERE n IN (SELECT n FROM audit WHERE "+which+" LIMIT ?)", bound, auditBatch)
		return t.Changes(), err
	})
}
