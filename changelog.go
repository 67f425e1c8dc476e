// Package postern has what lies at the root of the source and is part of the program.
package postern

import _ "embed"

// Changelog is CHANGELOG.md: package release reads it.
//
//go:embed CHANGELOG.md
var Changelog string
