// Package howto has the commands of the operating system that Postern tells people to run.
package howto
