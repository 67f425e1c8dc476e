package operate

import "context"

type actorKey struct{}

// WithActor returns a context of a request that comes from a.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf returns who a request comes from. False: nobody has said who it is, and nothing may be done for them.
func ActorOf(ctx context.Context) (Actor, bool) {
	a, ok := ctx.Value(actorKey{}).(Actor)
	return a, ok
}
