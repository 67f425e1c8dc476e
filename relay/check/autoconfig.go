package check

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postern/certs"
	"postern/mail"
	"postern/relay/clientsetup"
	"postern/relay/config"
)

// checkAutoconfig warns of what keeps mail programs from their settings: formats that cannot say what is configured,
// and names that the certificate is not for.
func checkAutoconfig(c *config.Config, now time.Time) []config.Problem {
	if !c.Autoconfig.On() {
		return nil
	}
	a := &autoconfigCheck{c: c, setup: clientsetup.Of(c)}
	a.formats()
	if c.Autoconfig.Address == "" {
		return a.warnings // a web server stands before, with a certificate of its own
	}
	options := c.CertOptions(slog.New(slog.DiscardHandler))
	if infos, err := certs.Check(options, now); err == nil && (len(infos) == 0 || infos[0].SelfSigned) {
		a.warn("address", "the certificate is self-signed, so mail programs do not read settings here: write "+
			"cert_file and key_file in [tls]")
		return a.warnings
	}
	a.names(clientsetup.Covers(options, now))
	return a.warnings
}

type autoconfigCheck struct {
	c        *config.Config
	setup    *clientsetup.Setup
	pacc     bool // is told
	warnings []config.Problem
}

func (a *autoconfigCheck) warn(key, format string, args ...any) {
	a.warnings = append(a.warnings, a.c.Problem("autoconfig."+key, format, args...))
}

// formats names those that are not told.
func (a *autoconfigCheck) formats() {
	domain := a.setup.Domains[0]
	_, thunderbird := a.setup.Thunderbird(domain)
	_, outlook := a.setup.Outlook(mail.Address{Local: "anybody", Domain: domain})
	_, pacc := a.setup.PACC()
	for _, err := range []error{thunderbird, outlook, pacc} {
		if unfit, ok := errors.AsType[*clientsetup.Unfit](err); ok {
			a.warn("domains", "%s is not told: %s", unfit.Format, unfit.Why)
		}
	}
	a.pacc = pacc == nil
}

// names says which the certificate lacks.
func (a *autoconfigCheck) names(covers func(string) bool) {
	if host := a.setup.URL.Hostname(); !covers(host) {
		a.warn("url", "the certificate does not cover %s, so mail programs do not read settings there", host)
	}
	if server := a.setup.Server(); server != "" && !covers(server) {
		a.warn("server", "the certificate does not cover %s, so mail programs that use these settings will warn of it",
			server)
	}
	for _, domain := range a.setup.Domains[:min(len(a.setup.Domains), maxUncovered)] {
		names := []string{clientsetup.AutoconfigPrefix + domain}
		if a.pacc {
			names = append(names, clientsetup.PACCPrefix+domain)
		}
		if missing := slices.DeleteFunc(names, covers); len(missing) > 0 {
			a.warn("domains", "the certificate does not cover %s, which mail programs ask by HTTPS: have the names "+
				"added to it. Until then %s", strings.Join(missing, " and "), withoutNames(a.c, a.pacc))
		}
	}
}

// maxUncovered bounds how many domains are looked at for names that the certificate lacks.
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
