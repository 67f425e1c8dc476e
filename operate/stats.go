package operate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/relay/stats"
	"postern/relay/store"
)

// Statistics answers a query as of now.
func (t Trace) Statistics(ctx context.Context, by Actor, q stats.Query, now time.Time) (*stats.Table, error) {
	if err := by.May(SeeStatistics); err != nil {
		return nil, err
	}
	q.For = by.searcher()
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	table, err := t.Store.Statistics(ctx, q, now)
	if errors.Is(err, stats.ErrQuery) {
		return nil, fault(Invalid, "%v", err)
	}
	return table, hurried(err)
}

// Forget removes a person, an address or a login, from the trace, the statistics, past alerts and the known
// recipients, and says what stays. No record of it names the person. After an error it can be called again.
func (t Trace) Forget(ctx context.Context, by Actor, name string) (f store.Forgotten, err error) {
	if name = strings.TrimSpace(name); name == "" || strings.HasPrefix(name, "*") || strings.HasPrefix(name, "@") {
		return f, fault(Invalid, "whom to forget is one address or login; patterns are not taken")
	}
	err = t.act(ctx, by, ForgetPerson, "", func(ctx context.Context, detail *string) error {
		f, err = t.Store.Forget(ctx, name, by.words())
		*detail = fmt.Sprintf("%d events removed, %d shortened", f.Events, f.Shortened)
		return err
	})
	return f, err
}
