//go:build unix

package places

// Etc is where packages and deploy/ have the configuration.
func Etc() string { return "/etc/postern" }

// DataDir is the default of data_dir.
func DataDir() string { return "/var/lib/postern" }
