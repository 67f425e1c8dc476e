package relay_test

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the imports column of docs/architecture.md: for each package of ours, which others of
// ours it may import. relay and what lies under cmd join them and may import everything.
var mayImport = map[string][]string{
	".":             nil, // CHANGELOG.md
	"mail":          nil,
	"relay/devices": nil,
	"policy":        {"mail"},
	"auth":          {"mail"},
	// Sources of logins.
	"auth/internal/...":  {"mail", "policy"},
	"auth/passwdfile":    {"auth", "auth/internal/...", "internal/textfile", "mail"},
	"auth/ldap":          {"auth", "mail"},
	"auth/dovecot":       {"auth", "auth/internal/...", "mail"},
	"auth/httpauth":      {"auth", "auth/internal/...", "internal/local", "mail"},
	"auth/oidc":          {"auth", "auth/internal/...", "internal/local", "mail"},
	"auth/oidc/oidctest": nil,
	"relay/sources": {"auth", "auth/dovecot", "auth/httpauth", "auth/ldap", "auth/oidc", "auth/passwdfile",
		"internal/textfile", "mail", "relay/config", "relay/upstream"},
	"certs":        {"internal/certtext", "internal/textfile"},
	"certs/acme":   {"mail"},
	"certs/dns01":  {},
	"admin":        {"mail"},
	"admin/access": {"auth", "internal/forwarded", "internal/local", "mail", "operate", "relay/seal", "relay/store"},
	"admin/console": {"admin/access", "auth", "certs/acme", "mail", "operate", "policy", "relay/clientsetup",
		"relay/config", "relay/devices", "relay/dnscheck",
		"relay/doctor", "relay/finding", "relay/keyring", "relay/queue", "relay/sign", "relay/stats",
		"relay/status", "relay/store",
		"relay/trace", "relay/upstream",
		"relay/upstream/advice"},
	"admin/door":       {"admin/access", "admin/console", "auth", "internal/local", "mail", "operate", "relay/store"},
	"admin/autoconfig": {"internal/forwarded", "mail", "relay/clientsetup"},
	"admin/selfservice": {"admin/access", "admin/console", "auth", "mail", "operate", "relay/clientsetup",
		"relay/config", "relay/store"},
	"admin/api": {"admin/access", "auth", "certs/acme", "mail", "operate", "relay/clientsetup", "relay/config",
		"relay/dnscheck", "relay/doctor",
		"relay/devices", "relay/finding",
		"relay/queue", "relay/sign", "relay/stats", "relay/status", "relay/store",
		"relay/trace"},
	"relay/config": {"auth", "auth/httpauth", "auth/ldap", "auth/oidc", "certs", "certs/acme", "certs/dns01",
		"internal/local", "internal/suggest",
		"internal/textfile",
		"mail", "policy", "relay/alert",
		"relay/upstream", "relay/upstream/graph", "relay/upstream/oauth", "relay/upstream/profile",
		"relay/upstream/replies", "relay/upstream/smtp", "relay/upstream/via"}, // what providers set
	"relay/clientsetup": {"certs", "mail", "relay/config"},
	"relay/submission": {"auth", "internal/logline", "mail", "policy", "relay/config", "relay/devices", "relay/encode",
		"relay/queue", "relay/spool",
		"relay/trace", "relay/wire"},
	"relay/outbound": {"internal/textfile", "mail", "policy", "relay/config", "relay/dsn", "relay/keyring",
		"relay/queue", "relay/seal", "relay/sign", "relay/spool", "relay/store", "relay/upstream",
		"relay/upstream/account", "relay/upstream/graph", "relay/upstream/oauth", "relay/upstream/profile",
		"relay/upstream/replies", "relay/upstream/smtp", "relay/upstream/storm", "relay/upstream/via"},
	"relay/monitor": {"auth", "certs", "certs/acme", "internal/textfile", "mail", "relay/alert", "relay/config",
		"relay/finding",
		"relay/keyring",
		"relay/outbound", "relay/queue", "relay/status", "relay/store", "relay/trace", "relay/upstream",
		"relay/upstream/advice", "relay/upstream/oauth", "relay/upstream/profile"},
	"relay/check": {"auth", "auth/passwdfile", "certs", "mail", "policy", "relay/clientsetup", "relay/config",
		"relay/keyring", "relay/monitor", "relay/outbound", "relay/sign", "relay/sources", "relay/store"},
	"relay/doctor": {"auth", "auth/passwdfile", "certs", "certs/acme", "mail", "relay/alert", "relay/check",
		"relay/config",
		"relay/finding",
		"relay/monitor", "relay/outbound", "relay/queue", "relay/status", "relay/store", "relay/trace", "relay/trial",
		"relay/upstream", "relay/upstream/oauth",
		"relay/upstream/profile"},
	"relay/trial": {"mail", "relay/config", "relay/outbound", "relay/store", "relay/upstream", "relay/upstream/advice",
		"relay/upstream/oauth", "relay/upstream/profile"},
	"relay/alert":        {"internal/local", "mail"},
	"relay/wire":         {"mail"},
	"relay/spool":        {"mail"},
	"relay/status":       {"mail", "relay/devices", "relay/upstream"},
	"relay/trace":        {"internal/logline", "mail"},
	"relay/keyring":      {"mail", "relay/sign"},
	"relay/stats":        {"mail", "relay/trace"},
	"relay/privacy":      {"mail", "relay/trace"},
	"relay/sign":         {"mail"},
	"relay/encode":       {"mail"},
	"relay/dsn":          {"mail"},
	"relay/capture":      {},
	"relay/fakeprovider": {"internal/fakesmtp", "mail"},
	"relay/queue":        {"internal/logline", "mail", "relay/trace"},
	"relay/upstream":     {"mail"},
	"relay/upstream/via": {"mail"},
	"relay/seal":         {},
	"relay/finding":      {},
	"relay/setup":        {"auth", "internal/suggest", "mail", "policy", "relay/upstream/profile"},
	"relay/backup":       {"auth", "certs", "mail", "relay/config", "relay/seal", "relay/store"},
	"operate": {"auth", "certs", "certs/acme", "internal/local", "internal/suggest",
		"internal/textfile", "mail", "policy",
		"relay/backup", "relay/check", "relay/clientsetup", "relay/config", "relay/devices", "relay/dnscheck",
		"relay/doctor", "relay/domains",
		"relay/finding", "relay/keyring",
		"relay/monitor", "relay/outbound", "relay/queue", "relay/sign", "relay/stats", "relay/status", "relay/store",
		"relay/trace",
		"relay/upstream/advice", "relay/upstream/profile"},
	"relay/dnscheck": {"mail", "relay/finding", "relay/keyring", "relay/sign"},
	"relay/domains": {"auth", "mail", "relay/clientsetup", "relay/config", "relay/dnscheck", "relay/outbound",
		"relay/sign", "relay/upstream/profile"},
	"relay/store": {"mail", "auth", "internal/release", "policy", "relay/config", "relay/devices", "relay/keyring",
		"relay/privacy",
		"relay/queue", "relay/seal", "relay/stats", "relay/trace", "relay/upstream", "relay/upstream/account",
		"relay/upstream/oauth", "relay/store/..."},
	"relay/store/...": {"relay/store/..."},
	// Test tools beside the product.
	"relay/upstream/oauth/oauthtest":     {"relay/upstream/oauth"},
	"relay/dnscheck/dnstest":             {},
	"auth/authtest":                      {"mail", "auth"},
	"policy/policytest":                  {"mail", "policy"},
	"relay/upstream/account":             {"mail", "relay/upstream"},
	"relay/upstream/account/accounttest": {"relay/upstream/account"},
	"relay/upstream/smtp": {"internal/logline", "mail", "relay/upstream", "relay/upstream/account",
		"relay/upstream/internal/...", "relay/upstream/replies", "relay/upstream/via"},
	"relay/upstream/graph": {"internal/logline", "mail", "relay/upstream", "relay/upstream/account",
		"relay/upstream/graph/large", "relay/upstream/internal/...", "relay/upstream/replies", "relay/upstream/via"},
	"relay/upstream/graph/large": {"mail"}, // which nothing but graph knows
	"relay/upstream/replies":     {"mail", "relay/upstream"},
	"relay/upstream/profile":     {"mail", "relay/upstream", "relay/upstream/replies"},
	"relay/upstream/advice":      {"mail", "relay/upstream/replies"},
	"relay/upstream/storm":       {"mail"},
	"relay/upstream/oauth": {"internal/local", "mail", "relay/seal", "relay/upstream/internal/...",
		"relay/upstream/via"},
	"relay/upstream/internal/...": {"internal/certtext", "mail"},
	"deploy":                      {},
	"deploy/helm/strict":          {}, // a module of its own
}

// unbound may import anything of ours.
var unbound = []string{"relay", "cmd", "bench", "internal"}

// general is what every package may import: what differs from one operating system to the other, and loops.
var general = []string{"internal/disk", "internal/dpapi", "internal/errno", "internal/filelock", "internal/howto",
	"internal/listen", "internal/periodic", "internal/places", "internal/rights"}

func TestImportsFollowTheDiagram(t *testing.T) {
	root := ".."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); name == "testdata" || path != root && strings.HasPrefix(name, ".") {
			return filepath.SkipDir
		}
		checkPackage(t, root, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkPackage(t *testing.T, root, dir string) {
	rel, _ := filepath.Rel(root, dir)
	rel = filepath.ToSlash(rel)
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		if _, none := err.(*build.NoGoError); none || os.IsNotExist(err) {
			return
		}
		t.Fatal(err)
	}
	allowed, known := lookup(rel)
	if !known {
		t.Errorf("package %s is not in the import diagram: add it to mayImport with what it may import", rel)
		return
	}
	for _, imported := range pkg.Imports {
		ours, ok := strings.CutPrefix(imported, "postern/")
		if !ok || allowed == nil && isUnbound(rel) {
			continue
		}
		if slices.Contains(general, ours) {
			continue
		}
		if !slices.ContainsFunc(allowed, func(a string) bool { return matches(a, ours) }) {
			t.Errorf("package %s imports %s, which the diagram does not allow", rel, ours)
		}
	}
}

func lookup(pkg string) (allowed []string, known bool) {
	if isUnbound(pkg) {
		return nil, true
	}
	if allowed, known = mayImport[pkg]; known {
		return allowed, true
	}
	for pattern, allowed := range mayImport {
		if matches(pattern, pkg) {
			return allowed, true
		}
	}
	return nil, false
}

func isUnbound(pkg string) bool {
	for _, u := range unbound {
		if pkg == u || u != "relay" && strings.HasPrefix(pkg, u+"/") {
			return true
		}
	}
	return false
}

func matches(pattern, pkg string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(pkg, prefix) && pkg != strings.TrimSuffix(prefix, "/")
	}
	return pattern == pkg
}
