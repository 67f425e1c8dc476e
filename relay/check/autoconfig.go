package check

import (
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"postern/certs"
	"postern/mail"
	"postern/relay/clientsetup"
	"postern/relay/config"
)

// checkAutoconfig warns of what keeps mail programs from their settings: names that the certificate is not for, and
// formats that cannot say what is configured.
func checkAutoconfig(c *config.Config, now time.Time) (warnings []config.Problem) {
	if !c.Autoconfig.On() {
		return nil
	}
	warn := func(key, format string, args ...any) {
		warnings = append(warnings, c.Problem("autoconfig."+key, format, args...))
	}
	setup := clientsetup.Of(c)
	_, thunderbird := setup.Thunderbird(setup.Domains[0])
	_, pacc := setup.PACC()
	_, outlook := setup.Outlook(mail.Address{Local: "anybody", Domain: setup.Domains[0]})
	for _, err := range []error{thunderbird, outlook, pacc} {
		if unfit, ok := errors.AsType[*clientsetup.Unfit](err); ok {
			warn("domains", "%s is not told: %s", unfit.Format, unfit.Why)
		}
	}
	if c.Autoconfig.Address == "" {
		return warnings // a web server stands before, with a certificate of its own
	}
	options := c.CertOptions(slog.New(slog.DiscardHandler))
	if infos, err := certs.Check(options, now); err == nil && (len(infos) == 0 || infos[0].SelfSigned) {
		warn("address", "the certificate is self-signed, so mail programs do not read settings here: write cert_file "+
			"and key_file in [tls]")
		return warnings
	}
	covers := clientsetup.Covers(options, now)
	u, err := url.Parse(c.Autoconfig.URL)
	if err == nil && !covers(u.Hostname()) {
		warn("url", "the certificate does not cover %s, so mail programs do not read settings there", u.Hostname())
	}
	if server := setup.Server(); server != "" && !covers(server) {
		warn("server", "the certificate does not cover %s, so mail programs that use these settings will warn of it",
			server)
	}
	for i, domain := range setup.Domains {
		var missing []string
		names := []string{clientsetup.AutoconfigPrefix + domain}
		if pacc == nil {
			names = append(names, clientsetup.PACCPrefix+domain)
		}
		for _, name := range names {
			if !covers(name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 && i < maxUncovered {
			warn("domains", "the certificate does not cover %s, which mail programs ask by HTTPS: have the names added "+
				"to it. Until then %s", strings.Join(missing, " and "), withoutNames(c, pacc == nil))
		}
	}
	return warnings
}

// maxUncovered bounds how many domains are named whose names are missing in the certificate.
const maxUncovered = 5

// withoutNames says what works without names of the domain in the certificate.
func withoutNames(c *config.Config, pacc bool) string {
	text := "Thunderbird finds nothing; http_address = \":80\" lets it, by way of url"
	if c.Autoconfig.HTTPAddress != "" {
		text = "Thunderbird comes by http_address, where whoever is on the way could lead it elsewhere"
	}
	if pacc {
		text += ", and PACC does not work"
	}
	return text
}
