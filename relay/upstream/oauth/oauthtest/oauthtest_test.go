package oauthtest

import (
	"context"
	"testing"

	"postern/relay/upstream/oauth"
)

func TestGrantStoreContract(t *testing.T) {
	if err := CheckGrantStore(t.Context(), oauth.NewMemoryGrants()); err != nil {
		t.Error(err)
	}
	if err := CheckGrantStore(t.Context(), lastWriterWins{oauth.NewMemoryGrants()}); err == nil {
		t.Error("a store where the last writer wins passes")
	}
}

type lastWriterWins struct{ *oauth.MemoryGrants }

func (l lastWriterWins) SaveGrant(ctx context.Context, upstream string, sealed []byte, _ int64) (int64, error) {
	_, version, _ := l.LoadGrant(ctx, upstream)
	return l.MemoryGrants.SaveGrant(ctx, upstream, sealed, version)
}
