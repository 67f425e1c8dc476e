package sqlite

import (
	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// Copy copies the whole database of from into to, which must be empty, with so many pages at a time. Where from is in a
// read transaction, it is the state of that which is copied, whatever others write meanwhile. between is called after
// each step but the last; its error ends the copy.
func Copy(to, from *Conn, pages int, between func() error) error {
	name, err := libc.CString("main")
	if err != nil {
		return err
	}
	defer libc.Xfree(to.tls, name)
	backup := lib.Xsqlite3_backup_init(to.tls, to.db, name, from.db, name)
	if backup == 0 {
		return to.error(lib.Xsqlite3_errcode(to.tls, to.db))
	}
	rc, stopped := int32(lib.SQLITE_OK), error(nil)
	for stopped == nil {
		if rc = lib.Xsqlite3_backup_step(to.tls, backup, int32(pages)); rc != lib.SQLITE_OK {
			break
		}
		stopped = between()
	}
	if finished := lib.Xsqlite3_backup_finish(to.tls, backup); rc == lib.SQLITE_DONE {
		rc = finished
	}
	if stopped != nil {
		return stopped
	}
	if rc != lib.SQLITE_OK {
		return to.error(rc)
	}
	return nil
}
