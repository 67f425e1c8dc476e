package console

import (
	"net/netip"
	"net/url"

	"postern/operate"
	"postern/relay/finding"
)

// mend is where what was found is mended.
type mend struct {
	Label string // of the link, a key of the catalogue until mendOf returns it
	Path  string
	needs operate.Operation
}

// spot is a page on which one acts on findings.
type spot uint8

const (
	outside spot = iota // nowhere in the console; the test of this file says why
	atLogin
	atLogins // an account is to be made there
	atLock   // a login, or an address that is locked out
	atQueue
	atHeld
	atUpstream
	atSettings // of the words in settingWords
	atAlerts
	atRecords // of the domain
	atKeys    // DKIM keys of the domain
	atDomain  // what becomes of its mail
	atCertificates
	atLearning
)

// places are where findings are mended, by their codes; those that are not here are mended outside.
var places = map[string]spot{
	"login-locked": atLogin, "login-silent": atLogin, "device-unseen": atLogin, "device-unreached": atSettings,
	"account-none": atLogins, "app-passwords-idle": atLogin,
	"lockout": atLock, "queue-old": atQueue, "held": atHeld, "held-long": atHeld, "queue-nearly-full": atQueue,
	"upstream-resolve": atUpstream, "upstream-connect": atUpstream, "upstream-tls": atUpstream,
	"upstream-greeting": atUpstream, "upstream-token": atUpstream, "upstream-login": atUpstream,
	"upstream-sender": atUpstream, "upstream-large-mail": atUpstream, "upstream-untested": atUpstream,
	"upstream-paused": atUpstream, "upstream-backing-off": atUpstream, "sender-denied": atUpstream,
	"refusals-not-believed": atUpstream, "quota-used": atUpstream, "quota-nearly-used": atUpstream,
	"upstream-null-sender": atSettings, "secret-ends": atSettings,
	"alert-none": atAlerts, "alert-unreachable": atAlerts,
	"config-problem": atSettings, "config-unwise": atSettings, "reload-refused": atSettings, "other-config": atSettings,
	"listener-closed": atSettings, "listener-no-auth": atSettings, "listener-refuses": atSettings,
	"listener-by-name": atSettings, "name-unknown": atSettings, "name-elsewhere": atSettings,
	"listener-tls": atSettings, "listener-certificate": atSettings, "certificate-broken": atSettings,
	"certificate-ends": atCertificates, "certificate-name": atSettings, "certificate-chain": atSettings,
	"certificate-chain-ended": atSettings, "certificate-usage": atSettings, "certificate-key": atSettings,
	"certificate-sha1": atSettings, "certificate-ecdsa-only": atSettings, "certificate-self-signed": atCertificates,
	"certificate-authority": atSettings, "device-old-key": atSettings, "device-old-tls": atSettings,
	"file-limit": atSettings, "file-readable": atSettings, "disk-full": atSettings, "disk-short": atSettings,
	"store-history": atSettings, "device-network-wide": atSettings, "device-old-tls-unused": atSettings,
	"source-down": atSettings, "device-learning": atLearning, "device-distrusts": atCertificates,
	"certificate-acme": atCertificates, "clients-missing": atRecords,
	"clients-differ": atRecords,

	"spf-none": atRecords, "spf-absent": atRecords, "spf-several": atRecords, "spf-syntax": atRecords,
	"spf-unreadable": atRecords, "spf-lookups": atRecords, "spf-lookups-near": atRecords, "spf-void": atRecords,
	"spf-long": atRecords, "spf-include-missing": atRecords, "spf-address-missing": atRecords,
	"spf-plus-all": atRecords, "spf-neutral-all": atRecords, "spf-no-all": atRecords, "spf-after-all": atRecords,
	"spf-redirect-ignored": atRecords, "spf-ptr": atRecords, "spf-wide": atRecords, "spf-loop": atRecords,
	"spf-include-none": atRecords, "spf-include-broken": atRecords, "spf-mx-many": atRecords,
	"dkim-none": atKeys, "dkim-unused": atKeys, "dkim-ed25519-only": atKeys, "dkim-short": atKeys, "dkim-weak": atKeys,
	"dmarc-strict-dkim": atKeys, "dkim-other-key": atKeys,
	"dkim-waiting": atRecords, "dkim-missing": atRecords, "dkim-doubled": atRecords, "dkim-cname-dangling": atRecords,
	"dkim-several": atRecords, "dkim-cut": atRecords, "dkim-syntax": atRecords, "dkim-revoked": atRecords,
	"dkim-quoted": atRecords, "dkim-wrong-type": atRecords, "dkim-hash": atRecords, "dkim-service": atRecords,
	"dkim-sample": atRecords, "dkim-testing": atRecords, "dkim-provider-missing": atRecords,
	"dmarc-none": atRecords, "dmarc-several": atRecords, "dmarc-syntax": atRecords, "dmarc-unreadable": atRecords,
	"dmarc-no-policy": atRecords, "dmarc-misplaced": atRecords, "dmarc-monitor": atRecords, "dmarc-testing": atRecords,
	"dmarc-subdomains": atRecords, "dmarc-psd": atRecords, "dmarc-old-tags": atRecords, "dmarc-no-reports": atRecords,
	"dmarc-report-address": atRecords, "dmarc-report-denied": atRecords,
	"outcome-spf": atDomain, "outcome-fails": atDomain, "outcome-refused": atDomain, "outcome-unknown": atDomain,
	"ptr-hostname": atSettings, "address-unknown": atSettings,
}

// settingWords are what the page of settings is searched for.
var settingWords = map[string]string{
	"upstream-null-sender": "bounce_from", "secret-ends": "upstream", "listener-closed": "listener",
	"listener-no-auth": "mechanisms", "listener-refuses": "max_connections", "listener-by-name": "listener",
	"name-unknown": "hostname", "name-elsewhere": "hostname", "ptr-hostname": "hostname", "address-unknown": "hostname",
	"certificate-name": "hostname", "device-old-tls": "tls", "file-limit": "max_connections",
	"file-readable": "password", "disk-full": "store", "disk-short": "store", "store-history": "history",
	"device-network-wide": "networks", "device-unreached": "listener",
	"device-old-tls-unused": "min_version", "source-down": "auth.source",
	"config-problem": "", "config-unwise": "", "reload-refused": "", "other-config": "",
}

// certificateWords are those of findings about certificates.
const certificateWords = "cert_file"

// mendOf is where a finding is mended; nil where that is outside, or the visitor may not see it. here is the domain
// whose page it is, "" elsewhere; about is what the finding is about.
func mendOf(v *visit, code, about, here string, w finding.Weight) *mend {
	if w == finding.Healthy {
		return nil
	}
	m := mend{}
	switch places[code] {
	case outside:
		return nil
	case atLogin:
		m = mend{"Go to the login", "/logins/" + url.PathEscape(about), operate.SeeAccounts}
	case atLogins:
		m = mend{"Go to the logins", "/logins", operate.SeeAccounts}
	case atLock:
		m = mend{"Go to the login", "/logins/" + url.PathEscape(about), operate.SeeAccounts}
		if _, err := netip.ParseAddr(about); err == nil {
			m = mend{"Go to the locked addresses", "/logins", operate.SeeAccounts}
		}
	case atQueue:
		m = mend{"Go to the queue", "/queue", operate.SeeQueue}
	case atHeld:
		m = mend{"Go to what is held", "/held", operate.SeeQueue}
	case atUpstream:
		m = mend{"Go to the provider", "/#" + upstreamID(about), operate.SeeStatus}
	case atCertificates:
		m = mend{"Go to the certificates", "/certificates", operate.SeeCertificates}
	case atLearning:
		m = mend{"Go to what is learned", "/learning", operate.SeeAccounts}
	case atAlerts:
		m = mend{"Go to the alerts", "/alerts", operate.SeeAlerts}
	case atSettings:
		m = mend{"Go to the setting", "/settings?" + url.Values{"q": {wordsOfSetting(code)}}.Encode(),
			operate.SeeSettings}
	default:
		m = mendOfDomain(places[code], about, here)
	}
	if m.Path == "" || !v.may(m.needs) {
		return nil
	}
	m.Label = v.t(key(m.Label))
	return &m
}

// mendOfDomain is the place on a domain's page; on that page itself without the way to it.
func mendOfDomain(p spot, about, here string) mend {
	path := ""
	if here == "" {
		if about == "" {
			return mend{}
		}
		path = "/domains/" + url.PathEscape(about)
	}
	switch {
	case p == atRecords:
		return mend{"Go to the records", path + "#records", operate.SeeDomains}
	case p == atKeys:
		return mend{"Go to the DKIM keys", path + "#keys", operate.SeeDomains}
	case here == "":
		return mend{"Go to the domain", path, operate.SeeDomains}
	}
	return mend{}
}

func wordsOfSetting(code string) string {
	if words, ok := settingWords[code]; ok {
		return words
	}
	return certificateWords
}

// upstreamID is the place of an upstream on the page Now.
func upstreamID(name string) string { return "upstream-" + url.PathEscape(name) }
