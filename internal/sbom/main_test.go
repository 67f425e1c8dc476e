package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// The test binary is a Go binary, too.
func TestModulesOfABinary(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1764288000")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(&out, self, "1.2.3+4"); err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(out.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	if got, want := b.Metadata.Component.PURL, "pkg:golang/postern@1.2.3%2B4"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
	if got := b.Metadata.Timestamp.Format("2006-01-02"); got != "2025-11-28" {
		t.Errorf("it is of %s", got)
	}
	if len(b.Components) == 0 || b.Components[0].Name != "std" || b.Components[0].Version[0] != '1' {
		t.Errorf("no standard library in %+v", b.Components)
	}
	var refs []string
	for _, c := range b.Components {
		refs = append(refs, c.Ref)
	}
	if !slices.Equal(b.Dependencies[0].DependsOn, refs) {
		t.Errorf("%+v does not need %q", b.Dependencies, refs)
	}
	if err := run(&out, "/dev/null", ""); err == nil {
		t.Error("an empty file is taken for a Go binary")
	}
}
