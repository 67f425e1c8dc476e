package relay

import (
	"context"

	"postern/relay/domains"
)

// devicesChanged adopts what the command line changed of what is learned and who is known by an address. Open sessions
// look at theirs again.
func (s *Server) devicesChanged(ctx context.Context) bool {
	known, err := s.store.KnownDevices(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("devices not read again, those known before stay", "err", err)
		}
		return false
	}
	s.devices.Set(known)
	s.accounts.generation.Add(1)
	return true
}

// ownSenders are patterns of all addresses in the domains that mail is sent for.
func (s *Server) ownSenders(ctx context.Context) ([]string, error) {
	return domains.SenderPatterns(ctx, s.state.Load().config, s.store)
}
