package load

import (
	"context"
	"sync"
)

// Held is a number of open, authenticated connections on which nothing happens.
type Held struct {
	clients []*client
}

const parallelDials = 16

// Hold opens n connections and logs in on each.
func Hold(ctx context.Context, c Config, n int) (*Held, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Held{clients: make([]*client, n)}
	errs := make([]error, parallelDials)
	var wg sync.WaitGroup
	for w := range parallelDials {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += parallelDials {
				h.clients[i], errs[w] = dial(ctx, &c, i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

// Alive asks each connection with NOOP and returns how many answered.
func (h *Held) Alive() int {
	alive := 0
	for _, c := range h.clients {
		if c.command("NOOP", 250) == nil {
			alive++
		}
	}
	return alive
}

// Close closes all connections without a word.
func (h *Held) Close() {
	for _, c := range h.clients {
		if c != nil {
			c.close()
		}
	}
}
