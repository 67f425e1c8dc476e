//go:build !unix

package main

func shareWithService(string) error { return nil }
