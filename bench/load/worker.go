package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/bench/ledger"
)

// worker sends over one connection at a time.
type worker struct {
	config  Config
	number  int
	message *ledger.Message
	next    *sequence
	client  *client
	used    int // messages on the client

	accepted, uncertain ledger.Set
	refused, failures   map[string]int
	latency             Histogram
	connections, octets int64
}

func newWorker(c Config, number int, m *ledger.Message, next *sequence) *worker {
	return &worker{config: c, number: number, message: m, next: next,
		refused: map[string]int{}, failures: map[string]int{}}
}

func (w *worker) run(ctx context.Context) {
	defer w.hangup()
	for ctx.Err() == nil {
		seq, ok := w.next.take()
		if !ok {
			return
		}
		begin := time.Now()
		if !w.connect(ctx) {
			return
		}
		if w.config.PerConnection != 1 {
			begin = time.Now()
		}
		w.send(seq)
		if w.accepted.Has(seq) {
			w.latency.Add(time.Since(begin))
		}
		if w.used++; w.config.PerConnection > 0 && w.used >= w.config.PerConnection {
			w.hangup()
		}
	}
}

// connect makes sure that there is a connection. It pauses longer after each failure.
func (w *worker) connect(ctx context.Context) bool {
	pause := firstPause
	for try := 0; w.client == nil && try < w.config.ConnectTries; try++ {
		c, err := dial(ctx, &w.config, w.number)
		if err == nil {
			w.client, w.used = c, 0
			w.connections++
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		count(w.failures, "connect: "+err.Error(), 1)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	return w.client != nil
}

func (w *worker) send(seq int) {
	octets := w.message.Stamped(seq)
	began, err := w.client.transaction(&w.config, octets)
	var refusal *refusal
	switch {
	case err == nil:
		w.accepted.Add(seq)
		w.octets += int64(len(octets))
	case errors.As(err, &refusal):
		count(w.refused, refusal.reply, 1)
		if err := w.client.command("RSET", 250); err != nil {
			w.drop()
		}
	default:
		if began {
			w.uncertain.Add(seq)
		}
		count(w.failures, fmt.Sprintf("transaction: %v", err), 1)
		w.drop()
	}
}

// hangup ends the connection with QUIT, drop without.
func (w *worker) hangup() {
	if w.client != nil {
		w.client.command("QUIT", 221)
		w.drop()
	}
}

func (w *worker) drop() {
	w.client.close()
	w.client = nil
}
