package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/release"
	"postern/relay/sign"
)

// What scripts/packages tells the linker of a build (-X) beside release.version, where Go itself knows less: in a
// linked worktree it stamps nothing.
var (
	commit   string
	date     string // of the commit, in Unix seconds
	modified string // "true" where the files were not those of the commit
)

// build is what is known of this binary, as --json prints it.
type build struct {
	Version  string    `json:"version"` // as package release says it
	Commit   string    `json:"commit,omitempty"`
	Date     time.Time `json:"date,omitzero"` // of the commit
	Modified bool      `json:"modified"`      // the files were not those of the commit
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	Signer   string    `json:"signer"` // what computes RSA signatures of DKIM
}

func readBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return buildOf(info).told()
}

// told is the build with what the linker was told in addition.
func (b build) told() build {
	b.Commit = cmp.Or(commit, b.Commit)
	b.Modified = b.Modified || modified == "true"
	if seconds, err := strconv.ParseInt(date, 10, 64); err == nil {
		b.Date = time.Unix(seconds, 0).UTC()
	}
	return b
}

func buildOf(info *debug.BuildInfo) build {
	b := build{Version: release.Version(), Go: info.GoVersion, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Signer: sign.Implementation()}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date, _ = time.Parse(time.RFC3339, s.Value)
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String is for one line: "v1.2.3, commit 0123456789ab of 2026-11-28, modified, go1.26.8 linux/amd64".
func (b build) String() string {
	s := b.Version
	if b.Commit != "" {
		s += ", commit " + b.Commit[:min(len(b.Commit), 12)]
		if !b.Date.IsZero() {
			s += " of " + b.Date.Format(time.DateOnly)
		}
		if b.Modified {
			s += ", modified"
		}
	}
	return s + ", " + b.Go + " " + b.Platform
}

func versionCommand() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "version",
		Short: "Print version, commit and date of this binary, and what computes its RSA signatures",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), readBuild())
			}
			b := readBuild()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "postern %s\nsigner: %s\n", b, b.Signer)
			return err
		},
	})
}
