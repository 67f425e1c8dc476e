// Package cputime says what a process costs, for tests that must not depend on what else the machine does.
package cputime
