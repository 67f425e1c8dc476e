package relay

import (
	"context"
	"os"
	"strings"

	"postern/auth"
	"postern/mail"
	"postern/relay/status"
)

// listenStatus makes the socket of `postern status` and returns what answers there until its context ends.
func (s *Server) listenStatus() (serve func(context.Context)) {
	l, err := status.Listen(s.state.Load().config.DataDir)
	if err != nil {
		s.log.Warn("postern status will get no answer", "err", err)
		return func(context.Context) {}
	}
	return func(ctx context.Context) { status.Serve(ctx, l, s.status) }
}

// status is the state of the server now.
func (s *Server) status(ctx context.Context) *status.Report {
	r := s.monitor.Status(ctx)
	r.Running, r.Phase, r.Version, r.PID, r.Since = true, status.Starting, s.options.Version, os.Getpid(), s.began
	select {
	case <-s.draining:
		r.Phase = status.Stopping
	default:
		if s.serving.Load() {
			r.Phase = status.Serving
		}
	}
	if refused := s.refused.Load(); refused != nil {
		r.Refused = *refused
	}
	counts, addresses := s.listeners.connections(), s.Addresses()
	for i := range r.Listeners {
		l := &r.Listeners[i]
		l.Connections = counts[l.Name]
		if strings.HasSuffix(l.Address, ":0") && addresses[l.Name] != "" { // any port that is free
			l.Address = addresses[l.Name]
		}
	}
	addSources(r, s.accounts.SourceStates())
	r.Summarize()
	return r
}

// addSources says which sources of logins answer.
func addSources(r *status.Report, states []auth.SourceState) {
	for _, state := range states {
		for i := range r.Sources {
			s := &r.Sources[i]
			if s.Name != state.Name {
				continue
			}
			s.State, s.Since = status.SourceUp, state.Since
			if state.Err != nil {
				s.State, s.Problem = status.SourceDown, mail.Printable(mail.Cut(state.Err.Error(), 500))
			}
		}
	}
}
