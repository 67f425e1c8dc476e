//go:build !linux

package main

func yieldToMail() {}
