package main

import (
	"encoding/json"
	"runtime/debug"
	"strings"
	"testing"

	"postern/internal/release"
	"postern/relay/sign"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{GoVersion: "go1.26.8",
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}, {Key: "vcs.time",
				Value: "2026-11-28T08:00:00Z"}, {Key: "vcs.modified", Value: "true"},
		}}
	want := release.Version() + ", commit 0123456789ab of 2026-11-28, modified, go1.26.8 "
	if got := buildOf(info).String(); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	bare := buildOf(&debug.BuildInfo{GoVersion: "go1.26.8"}).String() // outside git
	if got := bare; !strings.HasPrefix(got, release.Version()+", go1.26.8 ") {
		t.Errorf("without anything recorded: %q", got)
	}
	l := newCommandLine(t)
	var b build
	if err := json.Unmarshal([]byte(l.ok("version", "--json")), &b); err != nil || b.Go == "" || b.Version == "" {
		t.Errorf("%+v, %v", b, err)
	}
	if text := l.ok("version"); !strings.HasPrefix(text, "postern ") || !strings.Contains(text, b.Go) ||
		!strings.HasSuffix(text, "\nsigner: "+sign.Implementation()+"\n") || b.Signer != sign.Implementation() {
		t.Error(text)
	}
}
