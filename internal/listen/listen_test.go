package listen

import (
	"errors"
	"net"
	"testing"

	"postern/internal/errno"
)

// An address that is taken is refused, and one that is free takes connections.
func TestTCP(t *testing.T) {
	l, err := TCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := TCP(t.Context(), l.Addr().String()); !errors.Is(err, errno.AddressInUse) {
		t.Errorf("the second: %v", err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
