package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"postern/internal/disk"
	"postern/internal/howto"
	"postern/relay/finding"
)

// diskExam looks at the disk and the limits of the system.
type diskExam struct{ *exam }

// disk looks at the room for new mail, at inodes, and at the number of files that the daemon may open.
func (x diskExam) disk(context.Context) (list []finding.Finding) {
	dir := x.c.DataDir
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Dir(dir)
	}
	r, err := x.machine.room(dir)
	if err != nil {
		list = append(list, skipped(dir, "The disk of "+dir+" cannot be looked at: "+sentence(said(err.Error())),
			"Look whether it is there and mounted: df -h "+dir))
	} else {
		list = append(list, x.roomFindings(dir, r)...)
	}
	if x.report != nil {
		list = append(list, x.fileLimit()...)
	}
	return list
}

func (x diskExam) roomFindings(dir string, r disk.Room) (list []finding.Finding) {
	add := func(code string, w finding.Weight, what, why, fix string) {
		list = append(list, found(code, w, dir, what, why, fix))
	}
	floor, server := max(int64(x.c.Store.MinFree), 128<<20), x.c.Store.URL.Server()
	if server { // the store takes room there, and here only mail on its way
		floor = 128 << 20
	}
	switch refuses := x.report != nil && x.report.Disk.Refuses; {
	case r.ReadOnly:
		add(codeDiskReadOnly, finding.Danger, "The disk of "+dir+" is mounted so that nothing can be written.",
			"No mail can be taken, and what leaves cannot be noted. Linux does this by itself when a disk fails.",
			"dmesg | grep -i -e error -e ext4 -e xfs\nSave the data before anything else if the disk is failing.")
	case refuses && server:
		add(codeDiskRefuses, finding.Danger, "No new mail is taken: "+sentence(said(x.report.Disk.Problem)),
			"Mail programs are told to try again later. What was taken is safe.",
			"See whether the server of the store answers, and has room: psql '"+x.c.Store.URL.Place()+"'")
	case refuses:
		add(codeDiskRefuses, finding.Danger, "No new mail is taken: "+sentence(said(x.report.Disk.Problem)),
			"Mail programs are told to try again later (452). What was taken is safe.", howto.MakeRoom)
	case server && r.Free < floor:
		add(codeDiskFull, finding.Danger, fmt.Sprintf("The disk of %s has %s free.", dir, octets(r.Free)),
			"Mail on its way and answers that wait for the database are there: without room no mail is taken.",
			howto.MakeRoom)
	case r.Free < floor:
		add(codeDiskFull, finding.Danger, fmt.Sprintf("The disk of %s has %s free, and %s must stay free.", dir,
			octets(r.Free), octets(floor)),
			"Below that no new mail is taken: mail programs are told to try again later (452).", howto.MakeRoom)
	case !server && r.Free < 3*floor:
		add(codeDiskShort, finding.Fault, fmt.Sprintf("The disk of %s has %s free. Below %s no new mail is taken.", dir,
			octets(r.Free), octets(floor)), "One large batch of mail may be enough to fill it.", howto.MakeRoom)
	}
	if r.Files > 0 && r.FreeFiles < max(1000, r.Files/50) {
		w := finding.Fault
		if r.FreeFiles < 100 {
			w = finding.Danger
		}
		add(codeDiskInodes, w, fmt.Sprintf("The disk of %s has room for %d more files only, of %d.", dir, r.FreeFiles,
			r.Files), "A disk without room for files is as full as one without room for data, though df shows space.",
			"See where the many files are: du -x --inodes --max-depth=3 / | sort -n | tail")
	}
	list = append(list, x.quota()...)
	if len(list) == 0 {
		list = append(list, fine(codeDiskOK, dir, "%s are free, and room for %d files.", octets(r.Free), r.FreeFiles))
	}
	return list
}

// quota looks at what waits against max_size.
func (x diskExam) quota() []finding.Finding {
	if x.report == nil {
		return nil
	}
	d := x.report.Disk
	if d.MaxSize <= 0 || d.Queued < d.MaxSize/4*3 {
		return nil
	}
	fix := "See what waits and why: postern queue list\nIf the disk has the room, raise max_size in [store] of " +
		x.Path
	if x.c.Store.URL.Server() {
		fix = "See what waits and why: postern queue list\nIf the server has the room, raise max_size in [store] of " +
			x.Path
	}
	return []finding.Finding{found(codeQueueNearlyFull, finding.Fault, "queue",
		fmt.Sprintf("Mail that waits takes %s, "+
			"and max_size allows %s.", octets(d.Queued), octets(d.MaxSize)),
		"When it is reached, no new mail is taken.",
		fix)}
}

// filesBeside are the descriptors that the daemon needs beside those of clients and upstreams: store, logs, sockets.
const filesBeside = 100

// fileLimit compares how many files the daemon may open with the connections that it would take.
func (x diskExam) fileLimit() []finding.Finding {
	limit, known := openFiles(filepath.Join(x.machine.proc, strconv.Itoa(x.report.PID), "limits"))
	if !known {
		return nil
	}
	need := filesBeside
	for _, l := range x.c.Listeners {
		need += l.MaxConnections
	}
	for _, u := range x.c.Upstreams {
		need += max(u.MaxConnections, 1)
	}
	if limit >= need {
		return []finding.Finding{fine(codeFileLimitOK, "postern", "It may open %d files, and needs %d at most.", limit,
			need)}
	}
	return []finding.Finding{found(codeFileLimit, finding.Fault, "postern",
		fmt.Sprintf("Postern may open %d files, and "+
			"its listeners would take connections for %d.", limit, need),
		"When many clients come at once, connections fail before the bounds of the listeners are reached.",
		fmt.Sprintf("systemctl edit postern, and write below [Service]: LimitNOFILE=%d\nOr lower max_connections in "+
			"[[listener]].", 2*need))}
}

// openFiles reads the soft limit of a process, as proc(5) has it.
func openFiles(path string) (limit int, known bool) {
	data, err := os.ReadFile(path)
	if err != nil || len(data) > maxLimits {
		return 0, false
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if fields := strings.Fields(rest); ok && len(fields) > 0 {
			limit, err := strconv.Atoi(fields[0])
			return limit, err == nil // "unlimited" is no number
		}
	}
	return 0, false
}

const maxLimits = 16 << 10 // octets of /proc/PID/limits, which has 1300
