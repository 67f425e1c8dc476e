// Package disk says how much room there is where a directory is, and gives files their names.
package disk

// Room is what a file system has for us. One that counts no files has 0 of them.
type Room struct {
	Free             int64 // octets
	Files, FreeFiles int64 // inodes
	ReadOnly         bool
}
