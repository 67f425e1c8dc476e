package config

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// ofNode are the keys that each node at a database has values of its own for: where it listens, where its files are.
var ofNode = []string{"data_dir", "store.url", "store.node", "store.min_free", "admin.url", "admin.names",
	"self_service.url"}

// ofNodeEnd are ends of such keys.
var ofNodeEnd = []string{".address", "_address", "_file", ".path", ".socket", ".command"}

// Digest is a digest of what nodes at one database must have in common. Secrets are not in it: it is no help to who
// guesses them, and says nothing of whether they are alike.
func Digest(c *Config) []byte {
	h := sha256.New()
	for _, s := range Effective(c) {
		own := slices.Contains(ofNode, s.Key) || strings.HasPrefix(s.Key, "log.") ||
			slices.ContainsFunc(ofNodeEnd, func(end string) bool { return strings.HasSuffix(s.Key, end) })
		if !own && !s.Secret {
			fmt.Fprintf(h, "%q=%q\n", s.Key, s.Value)
		}
	}
	return h.Sum(nil)
}
