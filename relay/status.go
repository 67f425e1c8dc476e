package relay

import (
	"context"
	"os"
	"strings"

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
	r.Running, r.Phase, r.Version, r.PID, r.Since = true, s.phase(), s.options.Version, os.Getpid(), s.began
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
	r.Judge()
	return r
}

func (s *Server) phase() status.Phase {
	select {
	case <-s.draining:
		return status.Stopping
	default:
	}
	if s.serving.Load() {
		return status.Serving
	}
	return status.Starting
}
