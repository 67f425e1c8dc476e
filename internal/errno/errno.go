// Package errno names the errors of the operating system that Postern tells apart, for errors.Is. Package syscall has
// most of the names on Windows too, but with numbers that no call there returns.
package errno

import (
	"errors"
	"slices"
)

// Full reports that there is no room, or none left for this user.
func Full(err error) bool {
	return slices.ContainsFunc(full, func(one error) bool { return errors.Is(err, one) })
}
