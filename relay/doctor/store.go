package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/internal/howto"
	"postern/relay/finding"
	relaystore "postern/relay/store"
)

// storeExam looks at the store.
type storeExam struct{ *exam }

// storeTime is how long the store is read for damage. A file of a gigabyte takes some seconds.
const storeTime = 20 * time.Second

// From when parts of the store are longer than they get by themselves.
const (
	logLong      = 256 << 20 // octets; it is copied into the file at 32 MB, and twice that is normal under load
	emptyLeast   = 1 << 30   // octets of free pages that are worth a word
	historySlack = 4         // the history may be a quarter over its bound until it is trimmed
)

// store looks at the health and the growth of the store.
func (x storeExam) store(ctx context.Context) (list []finding.Finding) {
	path := relaystore.Of(x.c).Place()
	s, err := x.openStore(ctx)
	switch {
	case errors.Is(err, relaystore.ErrOlder):
		return []finding.Finding{found(codeStoreOlder, finding.Advice, path, sentence(said(err.Error())),
			"Until then commands of this version do not work on the store, and what is in it was not looked at.",
			howto.Restart+"\nWith several nodes see docs/upgrade.md.")}
	case err != nil && x.c.Store.URL.Server():
		return []finding.Finding{serverSilent(path, "The store cannot be opened: "+sentence(said(err.Error())))}
	case err != nil:
		return []finding.Finding{found(codeStoreUnreadable, finding.Danger, path, "The store cannot be opened: "+
			sentence(said(err.Error())),
			"It has the mail that waits, the accounts and the keys. Postern does not start "+
				"without it.", "Run it as root or as the user that Postern runs as. If that is so already, "+
				"the text says "+
				"what to do; keep a copy of "+x.c.DataDir+" before you change anything there.")}
	case s == nil && x.serving:
		return []finding.Finding{found(codeStoreGone, finding.Danger, path,
			"Postern runs, and its store is not there any "+
				"more.", "What is taken now is lost at the next restart.",
			"Look who removed it. Keep Postern running until "+
				"what waits has left (postern status), then restore the file from a backup.")}
	case s == nil:
		return []finding.Finding{fine(codeStoreOK, path, "There is no store yet; the first start makes it.")}
	}
	defer s.Close()
	short, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	h, err := s.Health(short)
	switch {
	case s.Shared() && err != nil:
		return []finding.Finding{serverSilent(path, "The store cannot be read: "+sentence(said(err.Error())))}
	case s.Shared():
		return x.server(ctx, path, s, h)
	case err != nil:
		return []finding.Finding{found(codeStoreUnreadable, finding.Danger, path, "The store cannot be read: "+
			sentence(said(err.Error())), "It has the mail that waits, the accounts and the keys.",
			"Look at the disk: dmesg | tail\nKeep a copy of "+x.c.DataDir+" before you change anything there.")}
	}
	return x.storeFindings(path, h)
}

func (x storeExam) storeFindings(path string, h relaystore.Health) (list []finding.Finding) {
	add := func(code string, w finding.Weight, what, why, fix string) {
		list = append(list, found(code, w, path, what, why, fix))
	}
	if len(h.Damage) > 0 {
		add(codeStoreDamaged, finding.Danger, fmt.Sprintf("The store is damaged: %s",
			sentence(said(strings.Join(h.Damage[:min(len(h.Damage), 3)], "; ")))),
			"Mail that waits may be unreadable, and Postern stops writing when it meets the damage. The usual "+
				"cause is a "+
				"failing disk or memory.",
			howto.Stop+"\nCopy "+x.c.DataDir+
				" to another disk, then postern restore the last backup into an "+
				"empty directory: docs/disaster.md. Look at the disk: smartctl -a, dmesg")
	}
	if h.Log > logLong {
		add(codeStoreLog, finding.Fault, fmt.Sprintf("The log of the store has grown to %s.", octets(h.Log)),
			"It is copied into the store while nobody reads it. Something reads without an end, or the disk "+
				"is full; the "+
				"store becomes slow, and the disk fills up.",
			"See who has it open: fuser -v "+path+"\nEnd what is not Postern, or restart Postern.")
	}
	list = append(list, x.history(path, h)...)
	if h.Within > emptyLeast && h.Within > h.File/2 {
		add(codeStoreEmpty, finding.Advice, fmt.Sprintf("More than half of the store is empty (%s of %s).",
			octets(h.Within), octets(h.File)),
			"It is used again for new mail, so nothing is wrong; it only takes room on the disk.",
			"If the disk needs the room: stop Postern, run sqlite3 "+path+" VACUUM as its user, and start it again.")
	}
	if len(list) == 0 {
		text := "It is in order: " + octets(h.File) + ", all of it read."
		if !h.Whole {
			text = fmt.Sprintf("Nothing is wrong with what is known of it: %s. It is too large to be read "+
				"whole within "+
				"%s.", octets(h.File), storeTime)
		}
		list = append(list, fine(codeStoreOK, path, "%s", text))
	}
	return list
}

func (x storeExam) history(path string, h relaystore.Health) []finding.Finding {
	bound := int64(x.c.Store.HistorySize)
	if bound <= 0 || h.History <= bound+bound/historySlack {
		return nil
	}
	return []finding.Finding{found(codeStoreHistory, finding.Advice, path,
		fmt.Sprintf("The history of mail takes %s (%d entries), and history_size "+
			"allows %s.", octets(h.History), h.Events, octets(bound)),
		"Postern trims it bit by bit while it runs. Where it stays like this, the trimming does not keep up.",
		"Look again in an hour. If it has grown, write a shorter history in [store] of "+x.Path)}
}
