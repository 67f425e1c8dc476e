package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func TestCode(t *testing.T) {
	a, b := code("1.0.0"), code("1.0.1")
	if a == b || a != code("1.0.0") || len(a) != 38 || a[15] != '5' || a != strings.ToUpper(a) {
		t.Errorf("%s, %s", a, b)
	}
}

// summaryOf is a file with summary information that has these properties of the type of times.
func summaryOf(ids ...uint32) []byte {
	le := binary.LittleEndian
	b := append([]byte("before"), make([]byte, 28)...)
	b = append(b, summary...)
	b = le.AppendUint32(b, 48)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(ids)))
	for i, id := range ids {
		b = le.AppendUint32(le.AppendUint32(b, id), uint32(8+8*len(ids)+12*i))
	}
	for range ids {
		b = append(le.AppendUint32(b, fileTime), "12345678"...)
	}
	return b
}

func TestStamp(t *testing.T) {
	b := summaryOf(created, 9, saved)
	if err := stamp(b, 0); err != nil {
		t.Fatal(err)
	}
	epoch := binary.LittleEndian.AppendUint64(nil, 116444736000000000) // of 1970, as Microsoft documents it
	if bytes.Count(b, epoch) != 2 || bytes.Count(b, []byte("12345678")) != 1 {
		t.Errorf("%q", b)
	}
	for name, bad := range map[string][]byte{"empty": nil, "one time": summaryOf(created), "short": b[:60],
		"twice": append(summaryOf(created, saved), summaryOf(created, saved)...)} {
		if err := stamp(bad, 0); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzStamp(f *testing.F) {
	f.Add(summaryOf(created, saved))
	f.Fuzz(func(_ *testing.T, file []byte) { _ = stamp(file, 1) })
}
