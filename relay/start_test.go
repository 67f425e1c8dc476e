package relay

import (
	"fmt"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/upstream"
)

// TestPausesThatEndWhileStarting: upstream accounts whose pauses, remembered from the life before, end at the moment of
// the start wake a queue that is there.
func TestPausesThatEndWhileStarting(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), provider: newProvider(t), log: &testkit.Log{}}
	r.write("")
	r.addUser(auth.User{Login: rigLogin})
	s := r.store()
	quotas := make([]upstream.Quota, 5000)
	now := time.Now()
	for i := range quotas {
		quotas[i] = upstream.Quota{Identity: fmt.Sprintf("u%d@example.com", i), Reply: mail.R(452, "4.5.3", "too many"),
			Until: now.Add(time.Duration(i) * 200 * time.Microsecond)}
	}
	if err := s.SaveQuotas(t.Context(), "provider", quotas); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.close()
}
