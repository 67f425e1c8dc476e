package memstore_test

import (
	"testing"

	"postern/relay/queue"
	"postern/relay/queue/memstore"
	"postern/relay/queue/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) queue.Store { return memstore.New() })
}
