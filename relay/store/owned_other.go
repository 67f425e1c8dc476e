//go:build !unix

package store

import "os"

// ownedAs does nothing: what is made in a directory has the rights of that.
func ownedAs(string, *os.Root, string) error { return nil }

// aloneIn does nothing for the same reason.
func aloneIn(*os.File) error { return nil }
