package queue

import (
	"time"

	"postern/mail"
)

// Decide is decider.decide for tests from outside.
func (q *Queue) Decide(now time.Time, m *Message, results []mail.Result) Outcome {
	return q.attempts.decider.decide(now, m, nil, results).out
}
