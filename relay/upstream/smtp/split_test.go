package smtp

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

func many(t *testing.T, n int) upstream.Transaction {
	to := make([]string, n)
	for i := range to {
		to[i] = fmt.Sprintf("user%d@example.net", i)
	}
	return message(t, to...)
}

// wantSplit checks that every recipient was taken once and how many each transaction had.
func wantSplit(t *testing.T, fake *fakesmtp.Server, r []mail.Result, sizes ...int) {
	t.Helper()
	seen := map[string]int{}
	var got []int
	for _, m := range fake.Messages() {
		got = append(got, len(m.To))
		for _, to := range m.To {
			seen[to]++
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(sizes) {
		t.Errorf("transactions of %v recipients, want %v", got, sizes)
	}
	for i, res := range r {
		if res.Class != mail.Delivered {
			t.Errorf("recipient %d: %s %s", i, res.Class, res.Reply)
		}
		if n := seen[fmt.Sprintf("TO:<user%d@example.net>", i)]; n != 1 {
			t.Errorf("recipient %d was taken %d times", i, n)
		}
	}
}

func TestEnvelopesAreSplit(t *testing.T) {
	fake, u := start(t, provider(), func(cfg *Config) { cfg.MaxRecipients = 4 })
	wantSplit(t, fake, send(t, u, many(t, 10)), 4, 4, 2)
	if n := fake.Counts(); n.Connections != 1 || n.Resets != 0 {
		t.Errorf("%d connections, %d RSET", n.Connections, n.Resets)
	}

	fc := provider()
	fc.Extensions = append(fakesmtp.Without(), "LIMITS RCPTMAX=3 MAILMAX=2")
	fake, u = start(t, fc, nil)
	wantSplit(t, fake, send(t, u, many(t, 8)), 3, 3, 2)
	if n := fake.Counts(); n.Connections != 2 || n.MostOpen != 1 {
		t.Errorf("%d connections, %d at once, though MAILMAX is 2", n.Connections, n.MostOpen)
	}
}

// "Too many recipients" is no verdict: the rest goes at once into the next transaction, and the limit is remembered.
func TestTooManyRecipients(t *testing.T) {
	for _, reply := range []string{"452 4.5.3 too many recipients", "452 too many", "552 too many recipients",
		"550 5.5.3 too many"} {
		for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING")} {
			taken := map[*fakesmtp.Session]int{}
			fc := provider()
			fc.Extensions = ext
			fc.Hook = func(s *fakesmtp.Session, verb, _ string) fakesmtp.Action {
				switch verb {
				case "MAIL":
					taken[s] = 0
				case "RCPT":
					if taken[s]++; taken[s] > 3 {
						return fakesmtp.Action{Reply: reply}
					}
				}
				return fakesmtp.Action{}
			}
			fake, u := start(t, fc, nil)
			wantSplit(t, fake, send(t, u, many(t, 8)), 3, 3, 2)
			rcpts := 0
			for _, l := range fake.Log() {
				if strings.HasPrefix(l, "RCPT") {
					rcpts++
				}
			}
			if rcpts != 8+5 {
				t.Errorf("%d RCPT, the limit was not remembered", rcpts)
			}
		}
	}
}

// What stops one transaction stops those behind it when it is not about recipients.
func TestSplitStopsAtTheRightFaults(t *testing.T) {
	for _, c := range []struct {
		action    fakesmtp.Action
		want      string
		messages  int
		uncertain string
	}{
		{fakesmtp.Action{Reply: "554 5.7.1 spam"}, "delivered delivered message-fault message-fault message-fault " +
			"message-fault", 1, "nnnnnn"},
		{fakesmtp.Action{Reply: "451 4.3.0 later"}, "delivered delivered deferral deferral delivered delivered", 2,
			"nnnnnn"},
		{fakesmtp.Action{Reply: "421 4.3.2 closing"}, "delivered delivered back-pressure back-pressure " +
			"back-pressure back-pressure", 1, "nnnnnn"},
		{fakesmtp.Action{Drop: true}, "delivered delivered deferral deferral deferral deferral", 1, "nnyynn"},
	} {
		fc := provider()
		fc.Hook = hookOn(fakesmtp.Chunk, 2, c.action)
		fake, u := start(t, fc, func(cfg *Config) { cfg.MaxRecipients = 2 })
		r := send(t, u, many(t, 6))
		wantClasses(t, r, c.want)
		var uncertain strings.Builder
		for _, res := range r {
			uncertain.WriteByte("ny"[b2i(res.Uncertain)])
		}
		if uncertain.String() != c.uncertain || len(fake.Messages()) != c.messages {
			t.Errorf("%+v: uncertain %s, %d messages", c.action, uncertain.String(), len(fake.Messages()))
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestPrefixIsMadeOnceForAllTransactions(t *testing.T) {
	fake, u := start(t, provider(), func(cfg *Config) { cfg.MaxRecipients, cfg.MessagesPerConnection = 1, 2 })
	calls := 0
	tr := many(t, 5)
	tr.Prefix = func(context.Context) ([]byte, error) { calls++; return []byte("X-Signed: yes\r\n"), nil }
	wantSplit(t, fake, send(t, u, tr), 1, 1, 1, 1, 1)
	if calls != 1 {
		t.Errorf("Prefix was called %d times", calls)
	}
	for _, m := range fake.Messages() {
		if !strings.HasPrefix(string(m.Data), "X-Signed: yes\r\nFrom:") {
			t.Errorf("content %.30q", m.Data)
		}
	}
}

// What has been taken is told between two transactions, and not after the last.
func TestTakenIsToldBetweenTransactions(t *testing.T) {
	_, u := start(t, provider(), func(cfg *Config) { cfg.MaxRecipients = 4 })
	tr := many(t, 10)
	var told []int
	tr.Taken = func(taken []mail.Result) {
		for _, r := range taken {
			if r.Class != mail.Delivered {
				t.Errorf("told of %+v", r)
			}
		}
		told = append(told, len(taken))
	}
	send(t, u, tr)
	if fmt.Sprint(told) != "[4 8]" {
		t.Errorf("told of %v recipients", told)
	}
}
