//go:build unix

package dnscheck

// System returns a Resolver that asks the servers of /etc/resolv.conf.
func System() (*Resolver, error) { return systemOf("/etc/resolv.conf") }
