package account

import "context"

// Shared keeps what several nodes know of their accounts together: one row for each account, which only nodes
// understand. It decides nothing; a row is replaced only by whoever has seen its latest version. Package store has one
// on PostgreSQL, package accounttest one in memory and the contract of both.
type Shared interface {
	// Swap does, for each row, one of two things. With a State it replaces the row whose version is still Version
	// (0: which is not there), or leaves it alone. Without one it looks. It returns one Answer for each row, in order,
	// and the time of the database's clock in nanoseconds, read while it ran. Of an error nobody knows whether rows
	// were replaced. Of rows with the same key one is replaced at most, and later ones hear of it. Each version
	// of a row is higher than all before it, even when the row was forgotten in between.
	Swap(ctx context.Context, rows []Row) (answers []Answer, now int64, err error)
}

// Row is what a node says of one account.
type Row struct {
	Upstream, Account string
	Version           int64  // that the node has seen; 0: none
	State             []byte // to be there from now on; empty: the node only looks
	Forget            int64  // by the database's clock, in ns: from then on nobody misses the row
}

// Answer is what there is of a row.
type Answer struct {
	Swapped bool
	Version int64  // 0: there is no row
	State   []byte // nil where the node knows it: it was swapped, or the version is the one that the node has seen
}
