// Package operate is what a person may do, in one place: the command line, the API and the console read it and show what
// it returns.
package operate
