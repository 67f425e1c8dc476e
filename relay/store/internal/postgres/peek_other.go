//go:build !unix

package postgres

import "net"

// peek cannot look here; a dead connection is found out by its next use.
func peek(net.Conn) (said bool, err error) { return false, nil }
