// Package listen opens the listeners of TCP, so that no other program of this machine gets what comes to their address.
package listen

import (
	"context"
	"net"
)

// TCP listens on an address as net.Listen does. On Windows, where another program could bind the same address by
// SO_REUSEADDR and take connections from us, it is ours alone; on Unix it always is.
func TCP(ctx context.Context, address string) (net.Listener, error) {
	l := net.ListenConfig{Control: alone}
	return l.Listen(ctx, "tcp", address)
}
