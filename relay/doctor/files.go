package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/internal/howto"
	"postern/internal/rights"
	"postern/relay/finding"
)

// fileExam looks at files and their rights.
type fileExam struct{ *exam }

// Bounds of the look at files.
const (
	maxFiles    = 5000           // in data_dir
	maxNamed    = 10             // of one kind
	leftoverAge = 24 * time.Hour // of a temporary file that nobody removed
)

func effectiveUser() int { return os.Geteuid() }

// files looks at who may read and write what, and at what nobody removed.
func (x fileExam) files(context.Context) (list []finding.Finding) {
	list = append(list, x.dataDir()...)
	for _, file := range append(x.c.Files(), x.c.TLS.KeyFile) {
		if f, bad := x.file(file); bad {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		list = append(list, fine(codeFilesOK, x.c.DataDir,
			"The files belong to whom they should, and nobody else reads "+
				"secrets."))
	}
	return list
}

// file looks at the rights over one that relay.toml names, or over itself.
func (x fileExam) file(path string) (finding.Finding, bool) {
	r, err := rights.Of(path)
	if path == "" || err != nil {
		return finding.Finding{}, false // config says so
	}
	own := path == x.c.Path() && hasLiteral(path)
	switch {
	case r.AnyoneWrites:
		chmod := "o-w"
		if own {
			chmod = "o-rwx" // one command for both
		}
		return found(codeFileWritable, finding.Fault, path,
			fmt.Sprintf("Every user of this machine may change %s (%s).", path, r),
			"Who changes it decides where mail goes and who may send.", r.Command(chmod, path)), true
	case r.AnyoneReads && own:
		return found(codeFileReadable, finding.Fault, path,
			fmt.Sprintf("Every user of this machine may read %s (%s), and passwords stand in it.", path, r),
			"Who reads them can send in the name of this office.", r.Command("o-rwx", path)+
				"\nBetter: put the passwords into files of their own and write password = \"file:NAME\"."), true
	}
	return finding.Finding{}, false
}

// hasLiteral looks for secrets that stand in relay.toml themselves.
func hasLiteral(path string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"'`)
		switch key {
		case "password", "client_secret", "refresh_token", "seal_key":
			if !strings.HasPrefix(value, "file:") && !strings.HasPrefix(value, "env:") {
				return true
			}
		}
	}
	return false
}

// dataDir looks at the directory of the store and what is in it.
func (x fileExam) dataDir() (list []finding.Finding) {
	dir := x.c.DataDir
	info, err := os.Stat(dir)
	if err != nil {
		return nil // the first start makes it, or config says so
	}
	r, err := rights.OfInfo(dir, info)
	if err == nil && r.Open {
		w, why := finding.Fault, "Other users of this machine see what is in it: mail, keys and hashes of passwords."
		if r.OthersWrite {
			w, why = finding.Danger, "Who may write there can replace the store, so Postern does not start with it."
		}
		list = append(list, found(codeDataDirOpen, w, dir,
			fmt.Sprintf("%s is open to other users of this machine (%s).", dir, r), why, r.Command("700", dir)))
	}
	owner := ownerOf(info)
	var foreign, open, left []string
	n := 0
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if n++; n > maxFiles {
			return fs.SkipAll
		}
		if err != nil {
			return nil // what is not ours to read
		}
		info, err := d.Info()
		if err != nil || path == dir {
			return nil // it has gone
		}
		if ownerOf(info) != owner {
			foreign = append(foreign, path)
		}
		if info.Mode().IsRegular() && !strings.HasSuffix(path, ".crt") {
			if r, err := rights.OfInfo(path, info); err == nil && r.Open {
				open = append(open, path)
			}
		}
		if x.leftover(path, info) {
			left = append(left, path)
		}
		return nil
	})
	return append(list, x.inDataDir(owner, foreign, open, left)...)
}

func (x fileExam) inDataDir(owner int, foreign, open, left []string) (list []finding.Finding) {
	dir := x.c.DataDir
	if len(foreign) > 0 {
		list = append(list, found(codeFileOwner, finding.Danger, dir, fmt.Sprintf("Files in %s belong to another user "+
			"than it does itself (uid %d): %s", dir, owner, named(foreign)),
			"Postern cannot write them and stops, or does not start again. This happens when it was run as root once.",
			howto.GiveAll(owner, dir)))
	}
	if len(open) > 0 {
		list = append(list, found(codeDataDirFiles, finding.Fault, dir,
			"Files of the store are open to other users of "+
				"this machine: "+named(open),
			"They hold mail, keys and hashes of passwords. Postern refuses a store that is "+
				"open.", howto.CloseAll(dir)))
	}
	if len(left) > 0 {
		list = append(list, found(codeLeftovers, finding.Advice, dir, "Temporary files were left behind: "+named(left),
			"A process died while it wrote them. They only take room; no mail is in them that was taken.",
			"Postern removes what it left itself at its next start. Remove the others by hand."))
	}
	return list
}

// leftover reports a temporary file that nobody can still be writing.
func (x fileExam) leftover(path string, info fs.FileInfo) bool {
	base := filepath.Base(path)
	temporary := strings.HasPrefix(base, "spool-") || strings.HasPrefix(base, ".self-signed") ||
		strings.HasPrefix(base, "seal.key.")
	return temporary && info.Mode().IsRegular() && x.now.Sub(info.ModTime()) > leftoverAge
}

func named(paths []string) string {
	text := strings.Join(paths[:min(len(paths), maxNamed)], ", ")
	if more := len(paths) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return said(text) + "."
}
