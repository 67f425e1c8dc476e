package load_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/bench/load"
	"postern/bench/sink"
	"postern/internal/testkit"
)

func start(t *testing.T, o sink.Options) *sink.Sink {
	t.Helper()
	s, err := sink.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func config(s *sink.Sink, run string) load.Config {
	return load.Config{Addr: s.Addr(), Mode: load.None, Run: run, From: "ann@example.com",
		To:   []string{"bob@example.net", "eve@example.org"},
		Size: 2000, Connections: 5, Count: 300, Timeout: 20 * time.Second}
}

func run(t *testing.T, c load.Config) *load.Report {
	t.Helper()
	r, err := load.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEverythingArrivesOnce(t *testing.T) {
	ca := testkit.NewCA(t)
	cert := ca.Leaf(testkit.LeafOptions{}).Server()
	for _, tt := range []struct {
		name string
		sink sink.Options
		set  func(*load.Config)
	}{
		{"clear", sink.Options{}, func(*load.Config) {}},
		{"starttls", sink.Options{TLS: cert, Username: "u", Password: "p"},
			func(c *load.Config) { c.Mode = load.StartTLS }},
		{"implicit", sink.Options{Mode: sink.Implicit, TLS: cert, Username: "u", Password: "p"},
			func(c *load.Config) { c.Mode = load.Implicit }},
		{"chunking", sink.Options{TLS: cert, Username: "u", Password: "p"},
			func(c *load.Config) { c.Mode, c.Chunking = load.StartTLS, true }},
		{"no pipelining", sink.Options{Without: []string{"PIPELINING"}}, func(*load.Config) {}},
		{"connection each", sink.Options{}, func(c *load.Config) { c.PerConnection = 1 }},
		{"ten a connection", sink.Options{}, func(c *load.Config) { c.PerConnection = 10 }},
		{"sources", sink.Options{}, func(c *load.Config) { c.Sources = 3 }},
		{"large", sink.Options{}, func(c *load.Config) { c.Size, c.Count = 300000, 20 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.sink)
			c := config(s, "r")
			c.TLS = ca.Client("localhost")
			if tt.sink.Username != "" {
				c.Login, c.Password = "u", "p"
			}
			tt.set(&c)
			r := run(t, c)
			if r.Accepted.Len() != c.Count || len(r.Refused)+len(r.Failures) > 0 {
				t.Fatalf("accepted %d, refused %v, failures %v", r.Accepted.Len(), r.Refused, r.Failures)
			}
			if p := s.Ledger().Check(r.Claim()); !p.OK() || p.Arrived != 2*c.Count {
				t.Errorf("%+v", p)
			}
			if want := (c.Count + max(c.PerConnection, 1) - 1) / max(c.PerConnection, 1); c.PerConnection > 0 &&
				r.Connections < int64(want) {
				t.Errorf("%d connections", r.Connections)
			}
			if c.Chunking && s.Stats().Flights > 2*c.Count {
				t.Errorf("%d flights for %d messages", s.Stats().Flights, c.Count)
			}
			if r.Latency.Quantile(0.5) <= 0 || r.Rate() <= 0 {
				t.Errorf("latency %v, rate %v", r.Latency.Quantile(0.5), r.Rate())
			}
		})
	}
}

// Refusals are not accepted, unknown outcomes are uncertain, and the claim is still exact.
func TestFaultyServer(t *testing.T) {
	for _, tt := range []struct {
		name               string
		fault              sink.Fault
		uncertain, refused bool
	}{
		{"refused at RCPT", sink.Fault{Stage: sink.AtRcpt, Reply: "451 4.2.0 later"}, false, true},
		{"one recipient of two", sink.Fault{Stage: sink.AtRcpt, Reply: "550 5.1.1 unknown", Recipient: "eve@*"}, false,
			false},
		{"refused at the dot", sink.Fault{Stage: sink.AtDot, Reply: "554 5.7.1 content"}, false, true},
		{"closed in the body", sink.Fault{Stage: sink.AtBody, Action: sink.Hangup}, true, false},
		{"taken without a reply", sink.Fault{Stage: sink.AtDot, Action: sink.Taken}, true, false},
		{"busy", sink.Fault{Stage: sink.AtConnect, Reply: "421 4.3.2 busy"}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.fault.Probability = 0.3
			s := start(t, sink.Options{Seed: 3, Faults: []sink.Fault{tt.fault}})
			c := config(s, "r")
			c.Count, c.PerConnection = 100, 5
			r := run(t, c)
			if r.Accepted.Len() == 0 || s.Stats().Faults == 0 {
				t.Fatalf("accepted %d, faults %d", r.Accepted.Len(), s.Stats().Faults)
			}
			if got := r.Uncertain.Len() > 0; got != tt.uncertain {
				t.Errorf("%d uncertain: %v", r.Uncertain.Len(), r.Failures)
			}
			if got := len(r.Refused) > 0; got != tt.refused {
				t.Errorf("refused %v, failures %v", r.Refused, r.Failures)
			}
			if p := s.Ledger().Check(r.Claim()); !p.OK() {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	s := start(t, sink.Options{})
	c := config(s, "r")
	s.Close()
	c.ConnectTries = 2
	if r := run(t, c); r.Accepted.Len() != 0 || r.Uncertain.Len() != 0 || len(r.Failures) == 0 {
		t.Errorf("%+v", r)
	}
}

// A run by time lasts as long as it is told, and what it claims is exact. On a slow machine a short one may come to
// nothing: then a longer one must not.
func TestDuration(t *testing.T) {
	s := start(t, sink.Options{})
	accepted := 0
	for d := 100 * time.Millisecond; accepted == 0 && d < time.Minute; d *= 2 {
		c := config(s, "r"+d.String())
		c.Count, c.Duration = 0, d
		r := run(t, c)
		accepted = r.Accepted.Len()
		if r.End.Sub(r.Begin) < d {
			t.Errorf("%v of %v", r.End.Sub(r.Begin), d)
		}
		if p := s.Ledger().Check(r.Claim()); !p.OK() {
			t.Errorf("%+v", p)
		}
	}
	if accepted == 0 {
		t.Error("nothing was accepted in any run")
	}
}

func TestHold(t *testing.T) {
	ca := testkit.NewCA(t)
	s := start(t, sink.Options{TLS: ca.Leaf(testkit.LeafOptions{}).Server(), Username: "u", Password: "p"})
	c := load.Config{Addr: s.Addr(), TLS: ca.Client("localhost"), Login: "u", Password: "p"}
	h, err := load.Hold(t.Context(), c, 50)
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Open != 50 || st.Logins != 50 {
		t.Errorf("%+v", st)
	}
	if n := h.Alive(); n != 50 {
		t.Errorf("%d alive", n)
	}
	s.DropConnections()
	if n := h.Alive(); n != 0 {
		t.Errorf("%d alive after the end", n)
	}
	h.Close()
	c.Password = "wrong"
	if h, err := load.Hold(t.Context(), c, 3); err == nil {
		h.Close()
		t.Error("held without a login")
	}
}

func TestConfig(t *testing.T) {
	good := load.Config{Addr: "127.0.0.1:1", Run: "r", From: "a@example.com", To: []string{"b@example.net"}, Count: 1}
	for name, change := range map[string]func(*load.Config){
		"no end":         func(c *load.Config) { c.Count = 0 },
		"no run":         func(c *load.Config) { c.Run = "" },
		"no sender":      func(c *load.Config) { c.From = "" },
		"no recipient":   func(c *load.Config) { c.To = nil },
		"no port":        func(c *load.Config) { c.Addr = "localhost" },
		"too many":       func(c *load.Config) { c.Count = 1 << 30 },
		"too many conns": func(c *load.Config) { c.Connections = 1 << 20 },
	} {
		c := good
		change(&c)
		if _, err := load.Run(context.Background(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h, o load.Histogram
	for i := range 1000 {
		d := time.Duration(i+1) * time.Millisecond
		if i%2 == 0 {
			h.Add(d)
		} else {
			o.Add(d)
		}
	}
	h.Merge(&o)
	for q, want := range map[float64]time.Duration{0: time.Millisecond, 0.5: 500 * time.Millisecond,
		0.99: 990 * time.Millisecond, 1: time.Second} {
		if got := h.Quantile(q); got < want*93/100 || got > want*107/100 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	data, err := json.Marshal(&h)
	if err != nil || !strings.Contains(string(data), `"count":1000`) {
		t.Errorf("%s %v", data, err)
	}
}
