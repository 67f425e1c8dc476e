package sqlite

import (
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// OnSync makes the connection call f before it syncs its database file or its log, for tests that count
// syncs or make them fail: an error of f is what the engine sees of the sync. The log must be open, which it is
// after the first transaction.
func (c *Conn) OnSync(f func() error) error {
	for _, which := range []int32{lib.SQLITE_FCNTL_FILE_POINTER, lib.SQLITE_FCNTL_JOURNAL_POINTER} {
		if err := c.onSync(which, f); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) onSync(which int32, f func() error) error {
	out := libc.Xcalloc(c.tls, 1, 8)
	methods := libc.Xcalloc(c.tls, 1, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_io_methods{})))
	if out == 0 || methods == 0 {
		return errNoMemory
	}
	defer libc.Xfree(c.tls, out)
	if rc := lib.Xsqlite3_file_control(c.tls, c.db, 0, which, out); rc != lib.SQLITE_OK {
		return c.error(rc)
	}
	file := (*lib.Tsqlite3_file)(pointer(*(*uintptr)(pointer(out))))
	old := *(*lib.Tsqlite3_io_methods)(pointer(file.FpMethods))
	real := *(*syncFunc)(unsafe.Pointer(&struct{ p uintptr }{old.FxSync}))
	hooked := syncFunc(func(tls *libc.TLS, id uintptr, flags int32) int32 {
		if f() != nil {
			return lib.SQLITE_IOERR_FSYNC
		}
		return real(tls, id, flags)
	})
	c.hooks = append(c.hooks, hooked) // the engine's memory does not keep it alive
	old.FxSync = *(*uintptr)(unsafe.Pointer(&hooked))
	*(*lib.Tsqlite3_io_methods)(pointer(methods)) = old
	file.FpMethods = methods // stays allocated: the file outlives the connection's statements
	return nil
}

type syncFunc func(tls *libc.TLS, id uintptr, flags int32) int32
