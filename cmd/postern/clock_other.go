//go:build !linux

package main

import "errors"

var errNoMonotonic = errors.New("no monotonic clock")

func monotonicMicroseconds() (int64, error) { return 0, errNoMonotonic }
