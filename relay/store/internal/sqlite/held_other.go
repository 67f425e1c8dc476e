//go:build !linux

package sqlite

func keepHeld() {}
