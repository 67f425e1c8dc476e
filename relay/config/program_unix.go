//go:build unix

package config

import "io/fs"

// isProgram reports a file that may be run.
func isProgram(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

func howToMakeProgram(path string) string { return "run: chmod +x " + path }
