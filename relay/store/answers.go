package store

import (
	"context"
	"time"

	"postern/relay/store/internal/db"
)

// schemaAnswers keeps what the API answered to requests with an Idempotency-Key. Status 0: begun. An empty body was
// not kept.
const schemaAnswers = `
CREATE TABLE api_answer (
	key     BLOB PRIMARY KEY, -- digest of who asked and of the key
	request BLOB NOT NULL,    -- digest of what was asked for
	at      INTEGER NOT NULL, -- when it was begun
	status  INTEGER NOT NULL,
	body    BLOB NOT NULL     -- sealed
) STRICT, WITHOUT ROWID;
CREATE INDEX api_answer_at ON api_answer (at);
`

// schemaAnswerCaller gives each caller a share of them. Those from before are of one caller.
const schemaAnswerCaller = `
ALTER TABLE api_answer ADD COLUMN caller BLOB NOT NULL DEFAULT x''; -- digest of who asked
CREATE INDEX api_answer_caller ON api_answer (caller, at);
`

// What is kept of answers. Where there are too many, the oldest goes of the caller that has most: nobody loses one who
// has less than an equal share.
const (
	AnswersFor    = 24 * time.Hour
	MaxAnswers    = 10_000
	MaxAnswerBody = 8 << 10 // octets; longer ones are not kept
)

// Answer is what became of a request.
type Answer struct {
	Request [32]byte // digest of what was asked for
	Status  int      // of HTTP; 0: it was begun, and what came of it is not known
	Body    []byte   // nil: not kept
	Begun   time.Time
}

// BeginAnswer notes that a request of a caller is begun, and returns nil. If one with this key was begun within
// AnswersFor, it is returned, and nothing is noted.
func (s *Store) BeginAnswer(ctx context.Context, now time.Time, caller, key, request [32]byte) (prior *Answer,
	err error) {
	err = s.write(ctx, func(t *tx) error {
		prior = nil
		if err := t.Run("DELETE FROM api_answer WHERE at <= ?", t.clock.nano(now.Add(-AnswersFor))); err != nil {
			return err
		}
		found, err := list(t.Conn, s.scanAnswer, "SELECT request, status, body, at FROM api_answer WHERE key = ?",
			key[:])
		if err != nil || len(found) > 0 {
			prior = first(found)
			return err
		}
		if err := t.Run("INSERT INTO api_answer VALUES (?, ?, ?, 0, ?, ?)", key[:], request[:], t.clock.nano(now),
			[]byte{}, caller[:]); err != nil {
			return err
		}
		return dropAnswers(t, caller)
	})
	if err == nil && prior != nil && prior.Body != nil {
		body, sealErr := s.sealer.Open(answerLabel(key), prior.Body)
		prior.Body, err = append([]byte{}, body...), s.explainSeal(sealErr)
	}
	return prior, wrap(err, "look for an earlier answer")
}

// dropAnswers forgets what is too much. Of callers that have as much as each other, the one that asks now loses.
func dropAnswers(t *tx, caller [32]byte) error {
	count, _, err := t.Int("SELECT count(*) FROM api_answer")
	for ; err == nil && count > MaxAnswers; count-- {
		err = t.Run("DELETE FROM api_answer WHERE key = (SELECT key FROM api_answer WHERE caller = (SELECT caller "+
			"FROM api_answer GROUP BY caller ORDER BY count(*) DESC, caller = ? DESC LIMIT 1) ORDER BY at LIMIT 1)",
			caller[:])
	}
	return err
}

func first(found []Answer) *Answer {
	if len(found) == 0 {
		return nil
	}
	return &found[0]
}

func (s *Store) scanAnswer(row db.Row) (Answer, error) {
	a := Answer{Status: int(row.Int(1)), Begun: s.clock.time(row.Int(3))}
	copy(a.Request[:], row.Blob(0))
	if b := row.Blob(2); len(b) > 0 {
		a.Body = b
	}
	return a, nil
}

func answerLabel(key [32]byte) string { return "postern api answer\x00" + string(key[:]) }

// FinishAnswer notes what a request that was begun was answered. The body is sealed; nil, or one longer than
// MaxAnswerBody, is not kept.
func (s *Store) FinishAnswer(ctx context.Context, key [32]byte, status int, body []byte) error {
	kept := []byte{}
	if body != nil && len(body) <= MaxAnswerBody {
		kept = s.sealer.Seal(answerLabel(key), body)
	}
	err := s.write(ctx, func(t *tx) error {
		return t.Run("UPDATE api_answer SET status = ?, body = ? WHERE key = ?", status, kept, key[:])
	})
	return wrap(err, "keep an answer")
}

// DropAnswer forgets a request that was begun and came to nothing, so that it may be made again.
func (s *Store) DropAnswer(ctx context.Context, key [32]byte) error {
	err := s.write(ctx, func(t *tx) error { return t.Run("DELETE FROM api_answer WHERE key = ?", key[:]) })
	return wrap(err, "forget a request")
}
