package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"postern/internal/howto"
	"postern/relay/finding"
	"postern/relay/status"
)

// daemonExam looks at the daemon.
type daemonExam struct{ *exam }

const howToStart = "Start it: " + howto.Start + " (or: postern serve)\nIf it does not stay up, its log says why: " +
	howto.Log

// daemon says whether the relay runs, and as what.
func (x daemonExam) daemon(context.Context) []finding.Finding {
	if x.report == nil {
		return []finding.Finding{x.noAnswer()}
	}
	r := x.report
	var list []finding.Finding
	switch r.Phase {
	case status.Starting:
		list = append(list, found(codeDaemonStarting, finding.Danger, "postern",
			"Postern is starting and takes no mail "+
				"yet.", "Mail programs get no answer until it has started.",
			"Wait some seconds and look again. If it stays like this, its log says why: "+howto.Log))
	case status.Stopping:
		list = append(list, found(codeDaemonStopping, finding.Danger, "postern",
			"Postern is shutting down and takes no "+
				"new mail.", "Mail programs are refused. What was taken is kept.", howToStart))
	default:
		list = append(list, fine(codeDaemonOK, "postern", "Postern %s runs since %s as process %d.", said(r.Version),
			r.Since.Format("2006-01-02 15:04"), r.PID))
	}
	return append(list, x.inForce()...)
}

func (x daemonExam) noAnswer() finding.Finding {
	switch {
	case x.gone():
		return found(codeDaemonDown, finding.Danger, "postern", "Postern does not run.",
			"No mail is taken, and none that waits leaves.", howToStart)
	case errors.Is(x.asked, fs.ErrPermission):
		return found(codeDaemonForbidden, finding.Fault, "postern", "Postern may run, but this user may not ask it.",
			"Much of what follows could not be looked at.",
			"Run it as root or as the user that Postern runs as: sudo postern doctor")
	}
	return found(codeDaemonSilent, finding.Danger, "postern", "Postern runs in "+x.c.DataDir+", but does not answer: "+
		sentence(said(x.asked.Error())),
		"It may hang, or take no mail.", "Look at its log: "+howto.Log+"\nThen restart it: "+howto.Restart)
}

// inForce compares what runs with what is on the disk.
func (x daemonExam) inForce() (list []finding.Finding) {
	r := x.report
	if r.Refused != "" {
		list = append(list, found(codeReloadRefused, finding.Fault, x.Path,
			"The last change of the configuration is not "+
				"in force: "+sentence(said(r.Refused)),
			"Postern works with what it read before. What was changed has no effect, and after a restart it may not "+
				"come up.", "Mend "+x.Path+" and run: postern check\nPostern reads the file again by itself when it "+
				"changes."))
	}
	if theirs, ours := absolute(r.Config), absolute(x.Path); theirs != "" && theirs != ours {
		list = append(list, found(codeOtherConfig, finding.Fault, ours, "Postern runs with "+said(theirs)+", and this "+
			"examination read "+ours+".", "What is said here of the configuration may not be what is in force.",
			"postern doctor --config "+said(theirs)))
	}
	switch {
	case x.Version != "" && r.Version != "" && x.Version != r.Version:
		list = append(list, found(codeOtherVersion, finding.Advice, "postern", fmt.Sprintf("Postern %s runs, and this "+
			"program is %s.", said(r.Version), x.Version),
			"An update is in force only after a restart; until then its repairs are missing.",
			howto.Restart))
	case x.replaced(r.PID):
		list = append(list, found(codeOtherVersion, finding.Advice, "postern", "The program file was replaced since "+
			"Postern started.", "An update is in force only after a restart; until then its repairs are missing.",
			howto.Restart))
	}
	return list
}

// replaced reports that the file of a process is not there any more, as Linux tells.
func (x daemonExam) replaced(pid int) bool {
	exe, err := os.Readlink(filepath.Join(x.machine.proc, strconv.Itoa(pid), "exe"))
	return err == nil && strings.HasSuffix(exe, " (deleted)")
}

func absolute(path string) string {
	if path == "" {
		return ""
	}
	if full, err := filepath.Abs(path); err == nil {
		path = full
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
