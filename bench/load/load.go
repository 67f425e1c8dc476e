// Package load sends numbered messages as fast as a server takes them, at little cost of its own, and records what the
// server promised, so that a sink behind the server can say whether it kept its promises.
//
// Failure semantics: a message answered 250 is accepted; one whose connection was lost while or after it was sent is
// uncertain; any other was not taken. No message is sent twice. A run is bounded by count, by time, or both.
package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"postern/bench/ledger"
)

// TLSMode says how a connection is protected.
type TLSMode string

// The modes.
const (
	StartTLS TLSMode = "starttls"
	Implicit TLSMode = "implicit"
	None     TLSMode = "none"
)

const (
	defaultTimeout = 2 * time.Minute
	maxReasons     = 50 // different texts in a report
	firstPause     = 20 * time.Millisecond
	longestPause   = time.Second
	maxConnections = 20000
)

// Config says what is sent where.
type Config struct {
	Addr            string
	Others          []string    // further servers, which connections take in turn with Addr
	Mode            TLSMode     // "": starttls
	TLS             *tls.Config // nil: the system's trust anchors and the host of Addr
	Login, Password string      // AUTH PLAIN if Login is set

	Run         string   // marks the messages; letters, digits, dots and hyphens
	From        string   // reverse-path and author
	To          []string // forward-paths of every message
	Size        int      // octets of a message
	Connections int      // at once; 0: 1
	// PerConnection is the number of messages per connection; 0: all.
	PerConnection int
	Count         int           // messages; 0: no bound
	Duration      time.Duration // after which no message is begun; 0: no bound
	Chunking      bool          // BDAT instead of DATA, all in one flight
	Timeout       time.Duration // for one flight; 0: 2 min
	ConnectTries  int           // failures in a row before a worker gives up; 0: 10
	Sources       int           // spreads connections over 127.0.0.1 to 127.0.0.N; 0: does not
}

// Report is the result of a run.
type Report struct {
	Run         string         `json:"run"`
	Recipients  []string       `json:"recipients"`
	Accepted    ledger.Set     `json:"accepted"`
	Uncertain   ledger.Set     `json:"uncertain"`
	Refused     map[string]int `json:"refused,omitempty"`  // by reply
	Failures    map[string]int `json:"failures,omitempty"` // by error
	Connections int64          `json:"connections"`
	Octets      int64          `json:"octets"` // of accepted messages
	Begin       time.Time      `json:"begin"`
	End         time.Time      `json:"end"`
	// Latency is from the first octet of a transaction to its last reply. It includes connecting and logging in if each
	// message has its own connection.
	Latency Histogram `json:"latency"`
}

// Claim is what to check the sink's ledger against.
func (r *Report) Claim() ledger.Claim {
	return ledger.Claim{Run: r.Run, Recipients: r.Recipients, Accepted: r.Accepted, Uncertain: r.Uncertain}
}

// Rate is the accepted messages per second.
func (r *Report) Rate() float64 {
	if d := r.End.Sub(r.Begin).Seconds(); d > 0 {
		return float64(r.Accepted.Len()) / d
	}
	return 0
}

// addrOf is the server that a connection goes to.
func (c *Config) addrOf(connection int) string {
	if i := connection % (1 + len(c.Others)); i > 0 {
		return c.Others[i-1]
	}
	return c.Addr
}

func (c Config) withDefaults() (Config, error) {
	c.Mode = cmp.Or(c.Mode, StartTLS)
	if c.Connections <= 0 {
		c.Connections = 1
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.ConnectTries <= 0 {
		c.ConnectTries = 10
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return c, fmt.Errorf("load: %w", err)
	}
	c.TLS = cmp.Or(c.TLS, &tls.Config{ServerName: host})
	c.TLS = c.TLS.Clone()
	c.TLS.DynamicRecordSizingDisabled = true // fewer, fuller records cost us less
	if c.Connections > maxConnections {
		return c, fmt.Errorf("load: %d connections, at most %d", c.Connections, maxConnections)
	}
	return c, nil
}

func (c Config) validate() error {
	switch {
	case c.Count <= 0 && c.Duration <= 0:
		return errors.New("load: give a count or a duration: a run has an end")
	case c.Count > ledger.MaxSeq+1:
		return fmt.Errorf("load: at most %d messages", ledger.MaxSeq+1)
	case c.Run == "" || len(c.Run) > 64:
		return errors.New("load: a run needs a name of at most 64 octets")
	case c.From == "" || len(c.To) == 0:
		return errors.New("load: reverse-path and forward-path are required")
	}
	return nil
}

// Run sends until a bound is reached or ctx ends. It fails only for a wrong Config; the report says what else went
// wrong.
func Run(ctx context.Context, c Config) (*Report, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	message := ledger.NewMessage(c.Run, c.From, c.To[0], c.Size, time.Now())
	next := &sequence{limit: int64(c.Count)}
	workers := make([]*worker, c.Connections)
	report := &Report{
		Run: c.Run, Recipients: c.To, Refused: map[string]int{}, Failures: map[string]int{}, Begin: time.Now(),
	}
	if c.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Duration)
		defer cancel()
	}
	var wg sync.WaitGroup
	for i := range workers {
		w := newWorker(c, i, message.Clone(), next)
		workers[i] = w
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
	report.End = time.Now()
	for _, w := range workers {
		report.add(w)
	}
	return report, nil
}

func (r *Report) add(w *worker) {
	r.Accepted.Merge(&w.accepted)
	r.Uncertain.Merge(&w.uncertain)
	r.Latency.Merge(&w.latency)
	r.Connections += w.connections
	r.Octets += w.octets
	for reason, n := range maps.All(w.refused) {
		count(r.Refused, reason, n)
	}
	for reason, n := range maps.All(w.failures) {
		count(r.Failures, reason, n)
	}
}

// count counts a reason among a bounded number of them.
func count(m map[string]int, reason string, n int) {
	if _, known := m[reason]; !known && len(m) >= maxReasons {
		reason = "others"
	}
	m[reason] += n
}

// sequence assigns the numbers of messages.
type sequence struct {
	next  atomic.Int64
	limit int64
}

func (s *sequence) take() (int, bool) {
	n := s.next.Add(1) - 1
	return int(n), (s.limit == 0 || n < s.limit) && n <= ledger.MaxSeq
}
