package relay

import (
	"context"

	"postern/policy"
	"postern/relay/config"
)

// state is everything that follows from the configuration and the keys. It never changes once it is
// published: a reload makes a new one, and whoever holds the old one goes on with it.
type state struct {
	config *config.Config
	policy *policy.Policy
	routes *Routes
}

// newState builds a state. What did not change is taken over from before.
func (s *Server) newState(ctx context.Context, c *config.Config, before *state) (*state, error) {
	st := &state{config: c}
	var err error
	if st.policy, err = policy.New(c.Rules()); err != nil {
		return nil, err
	}
	var routes *Routes
	if before != nil {
		st.policy.Succeed(before.policy)
		routes = before.routes
	}
	users, err := s.store.Users(ctx)
	if err != nil {
		return nil, err
	}
	st.policy.SetGroups(members(users))
	st.routes, err = s.dispatch.NewRoutes(ctx, c, routes)
	return st, err
}
