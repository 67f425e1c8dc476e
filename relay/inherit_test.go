package relay

import (
	"net"
	"slices"
	"testing"
)

// at is a socket that listens at an address.
type at struct {
	net.Listener
	address string
	closed  bool
}

func (l *at) Addr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", l.address)
	if err != nil {
		panic(err)
	}
	return a
}

func (l *at) Close() error {
	l.closed = true
	return nil
}

func TestInheritedSockets(t *testing.T) {
	for _, c := range []struct {
		socket, address string
		is              bool
	}{
		{"[::]:587", ":587", true},
		{"0.0.0.0:587", ":587", true}, // on a machine without IPv6
		{"[::]:587", "[::]:587", true},
		{"[::]:587", "0.0.0.0:587", false}, // would take what comes by IPv6, too
		{"0.0.0.0:587", "[::]:587", false},
		{"[::]:587", ":465", false},
		{"192.0.2.1:587", ":587", false},
		{"192.0.2.1:587", "192.0.2.1:587", true},
		{"192.0.2.1:587", "192.0.2.2:587", false},
		{"127.0.0.1:587", "localhost:587", true},
		{"127.0.0.1:40000", "127.0.0.1:0", false}, // any port means a new one
		{"127.0.0.1:587", "nowhere.invalid:587", false},
	} {
		one := &at{address: c.socket}
		in := inherited{one}
		if got := in.take(c.address) != nil; got != c.is || len(in) == 0 != c.is {
			t.Errorf("%s for %s: taken %t, left %d", c.socket, c.address, got, len(in))
		}
		if in.end(); one.closed == c.is {
			t.Errorf("%s for %s: closed %t", c.socket, c.address, one.closed)
		}
	}
}

// One of several is taken once, and the others stay in order.
func TestInheritedSocketIsTakenOnce(t *testing.T) {
	a, b, c := &at{address: "[::]:25"}, &at{address: "[::]:465"}, &at{address: "[::]:587"}
	in := inherited{a, b, c}
	if in.take(":465") != net.Listener(b) || in.take(":465") != nil || !slices.Equal(in, inherited{a, c}) {
		t.Errorf("left %v", in)
	}
}
