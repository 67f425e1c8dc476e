// Package errno names the errors of the operating system that Postern tells apart, for errors.Is. Package syscall has
// most of the names on Windows too, but with numbers that no call there returns.
package errno
