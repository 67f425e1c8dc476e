package store

import (
	"context"
	"errors"
)

// ErrNoNode: no node has that name.
var ErrNoNode = errors.New("no such node")

// DrainNode says that a node takes no mail and begins no attempt from now on, or that it does again. It holds over
// restarts of the node. The error is ErrNoNode where there is none of that name, and with SQLite.
func (s *Store) DrainNode(ctx context.Context, name string, on bool) error {
	if !s.Shared() {
		return ErrNoNode
	}
	err := s.write(ctx, func(t *tx) error {
		err := t.Run("UPDATE node SET drained = ? WHERE name = ?", on, name)
		if err == nil && t.Changes() == 0 {
			err = refuse(ErrNoNode)
		}
		return err
	})
	return wrap(err, "drain node %q", name)
}
