package relay

import (
	"context"

	"postern/policy"
	"postern/relay/config"
	"postern/relay/outbound"
	relaystore "postern/relay/store"
	"postern/relay/submission"
)

// state is everything that follows from the configuration and the keys. It never changes once it is
// published: a reload makes a new one, and whoever holds the old one goes on with it.
type state struct {
	config   *config.Config
	settings *submission.Settings
	routes   *outbound.Routes
}

// newState builds a state. What did not change is taken over from before.
func (s *Server) newState(ctx context.Context, c *config.Config, before *state) (*state, error) {
	rules, err := policy.New(c.Rules())
	if err != nil {
		return nil, err
	}
	st := &state{config: c, settings: &submission.Settings{Hostname: c.Hostname, Listeners: c.Listeners, Policy: rules,
		Expire: c.Delivery.Expire.Std(), StoreSize: int64(c.Store.MaxSize)}}
	var routes *outbound.Routes
	if before != nil {
		rules.Succeed(before.settings.Policy)
		routes = before.routes
	}
	users, err := s.store.Users(ctx)
	if err != nil {
		return nil, err
	}
	people, err := s.store.ProvidedPersons(ctx)
	if err != nil {
		return nil, err
	}
	rules.SetGroups(relaystore.Members(users, people))
	st.routes, err = s.outbound.NewRoutes(ctx, c, routes)
	return st, err
}
