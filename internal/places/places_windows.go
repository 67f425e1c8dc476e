package places

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// Etc is where the configuration of the service is: C:\ProgramData\Postern.
func Etc() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
	if err != nil {
		dir = filepath.Join(os.Getenv("SystemDrive")+`\`, "ProgramData")
	}
	return filepath.Join(dir, "Postern")
}

// DataDir is the default of data_dir.
func DataDir() string { return filepath.Join(Etc(), "data") }
