package store

import (
	"context"
	"time"

	"postern/relay/store/internal/sqlite"
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

// What is kept of answers; the oldest go first.
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
}

// BeginAnswer notes that a request is begun, and returns nil. If one with this key was begun within AnswersFor, it is
// returned, and nothing is noted.
func (s *Store) BeginAnswer(ctx context.Context, now time.Time, key, request [32]byte) (prior *Answer, err error) {
	err = s.write(ctx, func(t *tx) error {
		prior = nil
		if err := t.Run("DELETE FROM api_answer WHERE at <= ?", unixNano(now.Add(-AnswersFor))); err != nil {
			return err
		}
		found, err := list(t.Conn, scanAnswer, "SELECT request, status, body FROM api_answer WHERE key = ?", key[:])
		if err != nil || len(found) > 0 {
			prior = first(found)
			return err
		}
		if err := t.Run("INSERT INTO api_answer VALUES (?, ?, ?, 0, ?)", key[:], request[:], unixNano(now),
			[]byte{}); err != nil {
			return err
		}
		return t.Run("DELETE FROM api_answer WHERE key IN (SELECT key FROM api_answer ORDER BY at DESC LIMIT -1 "+
			"OFFSET ?)", MaxAnswers)
	})
	if err == nil && prior != nil && prior.Body != nil {
		body, sealErr := s.sealer.Open(answerLabel(key), prior.Body)
		prior.Body, err = append([]byte{}, body...), s.explainSeal(sealErr)
	}
	return prior, wrap(err, "look for an earlier answer")
}

func first(found []Answer) *Answer {
	if len(found) == 0 {
		return nil
	}
	return &found[0]
}

func scanAnswer(row *sqlite.Stmt) (Answer, error) {
	a := Answer{Status: int(row.Int(1))}
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
