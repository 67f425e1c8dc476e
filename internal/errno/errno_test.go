package errno

import (
	"errors"
	"io/fs"
	"testing"
)

// A disk is full by any of its numbers, whatever is around them; a file that is too large is another matter.
func TestFull(t *testing.T) {
	for _, err := range append(full, NoSpace, Quota) {
		if !Full(&fs.PathError{Op: "write", Path: "x", Err: err}) {
			t.Errorf("not full: %v", err)
		}
	}
	for _, err := range []error{nil, TooLarge, errors.New("another")} {
		if Full(err) {
			t.Errorf("full: %v", err)
		}
	}
}
