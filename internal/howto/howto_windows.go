package howto

// Of the service, and of the machine: for PowerShell.
const (
	Start    = "postern service start"
	Stop     = "postern service stop"
	Restart  = "Restart-Service postern"
	Enable   = "postern service install; postern service start"
	Log      = "Get-WinEvent -ProviderName postern -MaxEvents 50 | Format-List TimeCreated, Message"
	MakeRoom = "See what takes it in Settings, System, Storage, or run: cleanmgr"
	Move     = "Move-Item -Force"
)

// FindInLog searches the log for a word.
func FindInLog(word string) string {
	return "Get-WinEvent -ProviderName postern | Where-Object Message -match " + word
}

// Listens shows who listens on a TCP port.
func Listens(port string) string { return "Get-NetTCPConnection -State Listen -LocalPort " + port }

// CloseAll has what is in a directory inherit its access control list.
func CloseAll(dir string) string { return `icacls "` + dir + `\*" /reset /T` }

// GiveAll gives a directory and what is in it to the administrators; the access control list says who may use it.
func GiveAll(_ int, dir string) string { return `icacls "` + dir + `" /setowner *S-1-5-32-544 /T` }
