package config

import (
	"io/fs"
	"path/filepath"
	"strings"
)

// isProgram reports a file that Windows runs by itself. It hands a .bat or .cmd to a shell, which would read what we
// mean as plain arguments.
func isProgram(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && strings.EqualFold(filepath.Ext(info.Name()), ".exe")
}

func howToMakeProgram(string) string { return "write the path of one that ends with .exe" }
