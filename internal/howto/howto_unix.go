//go:build unix

package howto

import "strconv"

// Of the service, and of the machine.
const (
	Start    = "systemctl start postern"
	Stop     = "systemctl stop postern"
	Restart  = "systemctl restart postern"
	Enable   = "systemctl enable --now postern"
	Log      = "journalctl -u postern -n 50"
	MakeRoom = "See what takes it: du -xh --max-depth=2 / | sort -h | tail\nOld logs: journalctl --vacuum-size=500M"
	Move     = "mv"
)

// FindInLog searches the log for a word.
func FindInLog(word string) string { return "journalctl -u postern | grep " + word }

// Listens shows who listens on a TCP port.
func Listens(port string) string { return "ss -ltnp 'sport = :" + port + "'" }

// CloseAll closes a directory and what is in it to others.
func CloseAll(dir string) string { return "chmod -R go-rwx " + dir }

// GiveAll gives a directory and what is in it to a user.
func GiveAll(uid int, dir string) string { return "chown -R " + strconv.Itoa(uid) + " " + dir }
