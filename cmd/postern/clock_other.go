//go:build !linux

package main

func monotonicMicroseconds() (int64, error) { return 0, errNoMonotonic }
