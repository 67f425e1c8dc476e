// Command number prints the version of the source, for scripts.
package main

import (
	"fmt"

	"postern/internal/release"
)

func main() { fmt.Println(release.Number()) }
