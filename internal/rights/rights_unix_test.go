//go:build unix

package rights

import (
	"os"
	"testing"
)

func everybodyReads(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
}
