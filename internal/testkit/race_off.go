//go:build !race

package testkit

// Race tells whether the tests, and with them the binary, are built with the race detector.
const Race = false
