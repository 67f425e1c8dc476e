package disk

import "os"

// SyncDir does nothing: Windows syncs no directory, and NTFS has its own journal of names.
func SyncDir(string) error { return nil }

// SyncIn does nothing either.
func SyncIn(*os.Root, string) error { return nil }
