package testkit

import (
	"compress/gzip"
	"io"
	"os"
	"strings"
	"testing"
)

// Unzip returns what a file of gzip has.
func Unzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Restore fills an empty database from what pg_dump --inserts wrote, without the lines that only psql understands.
func Restore(t testing.TB, address string, dump []byte) {
	t.Helper()
	var script strings.Builder
	for line := range strings.Lines(string(dump)) {
		if !strings.HasPrefix(line, `\`) {
			script.WriteString(line)
		}
	}
	SQL(t, address, script.String())
}
