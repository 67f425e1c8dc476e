package sqlite

import (
	"path"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// keepHeld makes the engine open a path below /proc/self/fd as it stands. It resolves all links in a path otherwise,
// and what it finds there is the present name of the open directory, which somebody may give to another one.
func keepHeld() {
	tls := libc.NewTLS()
	defer tls.Close()
	name, err := libc.CString("lstat")
	if err != nil {
		return // no memory: the engine opens nothing either
	}
	defer libc.Xfree(tls, name)
	vfs := lib.Xsqlite3_vfs_find(tls, 0)
	f := (*lib.Tsqlite3_vfs)(pointer(vfs)).FxSetSystemCall
	set := *(*func(tls *libc.TLS, vfs, name, f uintptr) int32)(unsafe.Pointer(&struct{ p uintptr }{f}))
	set(tls, vfs, name, *(*uintptr)(unsafe.Pointer(&statHeld)))
}

// statHeld is lstat, for which a link of /proc/self/fd is what it leads to. A variable: the engine's memory does not
// keep it alive.
var statHeld = func(tls *libc.TLS, at, buf uintptr) int32 {
	if name := libc.GoString(at); name == "/proc/self" || path.Dir(name) == "/proc/self/fd" {
		return libc.Xstat(tls, at, buf)
	}
	return libc.Xlstat(tls, at, buf)
}
