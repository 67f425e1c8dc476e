package sink

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"postern/bench/ledger"
)

const maxControlBody = 64 << 20 // octets of a claim

// Control returns the HTTP interface to a running sink:
//
//	GET  /status   counters and a summary of each run, JSON
//	GET  /ledger   arrivals by run and recipient, JSON lines
//	POST /check    a ledger.Claim; answers the ledger.Proof, status 409 when it does not hold
//	PUT  /faults   a list of Fault in place of the present ones
//	PUT  /delay    {"delay": "50ms"}
//	POST /reset    empties the ledger
//	POST /drop     closes all connections
//
// It has no protection: serve it on loopback.
func (s *Sink) Control() http.Handler {
	mux, c := http.NewServeMux(), control{s}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]any{"stats": s.Stats(), "runs": s.ledger.Summaries()})
	})
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		s.ledger.WriteTo(w)
	})
	mux.HandleFunc("POST /check", c.check)
	mux.HandleFunc("PUT /faults", c.setFaults)
	mux.HandleFunc("PUT /delay", c.setDelay)
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		s.ledger.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /drop", func(w http.ResponseWriter, _ *http.Request) {
		s.DropConnections()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// control answers the requests of Control that have a body.
type control struct{ sink *Sink }

func (c control) check(w http.ResponseWriter, r *http.Request) {
	var claim ledger.Claim
	if !readJSON(w, r, &claim) {
		return
	}
	proof := c.sink.ledger.Check(claim)
	status := http.StatusOK
	if !proof.OK() {
		status = http.StatusConflict
	}
	answerJSON(w, status, proof)
}

func (c control) setFaults(w http.ResponseWriter, r *http.Request) {
	var faults []Fault
	if !readJSON(w, r, &faults) {
		return
	}
	if err := c.sink.SetFaults(faults); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c control) setDelay(w http.ResponseWriter, r *http.Request) {
	var set struct{ Delay string }
	if !readJSON(w, r, &set) {
		return
	}
	d, err := time.ParseDuration(set.Delay)
	if err != nil || d < 0 || d > time.Minute {
		http.Error(w, "delay: a duration between 0s and 1m", http.StatusBadRequest)
		return
	}
	c.sink.SetDelay(d)
	w.WriteHeader(http.StatusNoContent)
}

func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // the peer is gone if it fails
}

// ServeControl serves Control on a listener until ctx is done.
func (s *Sink) ServeControl(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: s.Control(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
