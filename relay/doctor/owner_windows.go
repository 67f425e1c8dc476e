package doctor

import "io/fs"

// ownerOf is the same for all: on Windows the access control list says who may write a file, not its owner.
func ownerOf(fs.FileInfo) int { return 0 }
