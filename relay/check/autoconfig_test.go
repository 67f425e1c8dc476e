package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
)

// Whatever keeps mail programs from their settings is said, and nothing where nothing does.
func TestWarningsOfAutoconfig(t *testing.T) {
	t.Parallel()
	ca := testkit.NewCA(t)
	usual := []string{"relay.example.com", "autoconfig.example.com", "ua-auto-config.example.com"}
	for _, c := range []struct {
		name     string
		names    []string // in the certificate; none: self-signed
		settings string
		incoming string
		listener string
		want     []string // beginnings of what follows the key
	}{
		{name: "all is well", names: usual, settings: `address = ":443"`},
		{name: "wildcard", names: []string{"*.example.com"}, settings: `address = ":443"`},
		{name: "self-signed", settings: `address = ":443"`,
			want: []string{"autoconfig.address: the certificate is self-signed"}},
		{name: "behind a web server", settings: `url = "https://www.example.com"`},
		{name: "names are missing", names: usual[:1], settings: `address = ":443"`,
			want: []string{"autoconfig.domains: the certificate does not cover autoconfig.example.com and " +
				"ua-auto-config.example.com, which mail programs ask by HTTPS: have the names added to it. Until " +
				"then Thunderbird finds nothing"}},
		{name: "names are missing, with HTTP", names: usual[:1], settings: "address = \":443\"\nhttp_address = \":80\"",
			want: []string{"autoconfig.domains: the certificate does not cover autoconfig.example.com and " +
				"ua-auto-config.example.com, which mail programs ask by HTTPS: have the names added to it. Until " +
				"then Thunderbird comes by http_address"}},
		{name: "another server", names: usual, settings: "address = \":443\"\nserver = \"mail.example.com\"\n" +
			`url = "https://setup.example.com"`, want: []string{
			"autoconfig.url: the certificate does not cover setup.example.com",
			"autoconfig.server: the certificate does not cover mail.example.com"}},
		{name: "without port 465", names: usual, settings: `address = ":443"`,
			listener: "[[listener]]\naddress = \":587\"",
			want:     []string{"autoconfig.domains: PACC is not told: it knows submission on port 465"}},
		{name: "OAuth", names: usual, settings: `address = ":443"`, incoming: `authentication = "oauth2"`,
			want: []string{"autoconfig.domains: Outlook's autodiscover is not told: it knows passwords alone",
				"autoconfig.domains: PACC is not told: it knows passwords alone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			files := ""
			if len(c.names) > 0 {
				leaf := ca.Leaf(testkit.LeafOptions{Names: c.names, NotAfter: time.Now().AddDate(1, 0, 0)})
				files = fmt.Sprintf("tls.cert_file = %q\ntls.key_file = %q\n", leaf.CertFile, leaf.KeyFile)
			}
			path := filepath.Join(t.TempDir(), "relay.toml")
			text := fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = \"data\"\n%s%s\n[autoconfig]\ndomains = "+
				"[\"example.com\"]\n%s\n[autoconfig.incoming]\nhost = \"imap.example.com\"\n%s\n[[upstream]]\nname = "+
				"\"office\"\nhost = \"smtp.example.net\"\n", files, c.listener, c.settings, c.incoming)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			loaded, problems := Config(t.Context(), path)
			for _, p := range problems {
				if !strings.Contains(p.String(), "address") { // that this machine does not give
					t.Fatal(p)
				}
			}
			var said []string
			for line := range strings.Lines(linesOf(Warnings(loaded, time.Now()))) {
				if _, rest, ok := strings.Cut(line, ": autoconfig."); ok {
					said = append(said, "autoconfig."+strings.TrimSpace(rest))
				}
			}
			matches := len(said) == len(c.want)
			for i := range min(len(said), len(c.want)) {
				matches = matches && strings.HasPrefix(said[i], c.want[i])
			}
			if !matches {
				t.Errorf("said\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
