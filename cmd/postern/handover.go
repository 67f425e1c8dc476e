//go:build unix

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// handedOver is the name of our sockets in systemd's store of file descriptors (FileDescriptorStoreMax=).
const handedOver = "listener"

// inheritSockets returns the sockets that systemd passes on (sd_listen_fds(3)), and has it let go of those that the
// daemon before us left: a listener that is closed by a reload must not stay open there.
func inheritSockets(log *slog.Logger) []net.Listener {
	passed, err := activation.Listeners()
	if err != nil {
		log.Warn("sockets of systemd are left out", "err", err)
	}
	var sockets []net.Listener
	for _, l := range passed {
		if l != nil { // of another kind
			log.Info("socket inherited", "address", l.Addr().String())
			sockets = append(sockets, l)
		}
	}
	notify("FDSTOREREMOVE=1\nFDNAME=" + handedOver)
	return sockets
}

// handOver leaves sockets with systemd, which keeps them during a restart: clients that come meanwhile wait for the
// next daemon. Where the service is stopped, systemd closes them.
func handOver(log *slog.Logger, sockets []net.Listener) {
	to := os.Getenv("NOTIFY_SOCKET")
	if to == "" {
		return
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"}) // Go passes nothing on by a dialled one
	if err == nil {
		defer conn.Close()
		for _, l := range sockets {
			err = errors.Join(err, leave(l, conn, to))
		}
	}
	if err != nil {
		log.Warn("sockets are not left to systemd: clients are refused until the next start", "err", err)
	}
}

// leave passes one socket on, as it is: a copy by File would make it block.
func leave(l net.Listener, conn *net.UnixConn, to string) error {
	socket, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("%T has no descriptor", l)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = conn.WriteMsgUnix([]byte("FDSTORE=1\nFDNAME="+handedOver), syscall.UnixRights(int(fd)),
			&net.UnixAddr{Name: to, Net: "unixgram"})
	})
	return errors.Join(err, sent)
}
