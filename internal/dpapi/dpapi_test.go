package dpapi

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// A secret comes back on Windows, where what was changed does not; elsewhere both ways say that it is no Windows.
func TestSealAndOpen(t *testing.T) {
	sealed, err := Seal([]byte("s3cret ä"))
	if runtime.GOOS != "windows" {
		if _, openErr := Open("QUJD"); !errors.Is(err, ErrElsewhere) || !errors.Is(openErr, ErrElsewhere) {
			t.Errorf("%v, %v", err, openErr)
		}
	} else {
		text, ours := strings.CutPrefix(sealed, Prefix)
		if err != nil || !ours || strings.Contains(sealed, "s3cret") {
			t.Fatalf("%q, %v", sealed, err)
		}
		if got, err := Open(text); string(got) != "s3cret ä" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		changed := "AAAA" + text[4:]
		if got, err := Open(changed); err == nil || !strings.Contains(err.Error(), "postern secret protect") {
			t.Errorf("changed: %q, %v", got, err)
		}
	}
	for _, cut := range []string{"", "QUJ", "not base64"} {
		if _, err := Open(cut); err == nil || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("%q: %v", cut, err)
		}
	}
}
