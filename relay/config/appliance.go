package config

import (
	"crypto/tls"
	"log/slog"

	"postern/certs"
)

// Appliance is the profile of listeners for old devices: printers, scanners, controllers and programs that write mail
// as was usual long ago, in TLS as was usual long ago. What they send is repaired before it is signed.
const Appliance = "appliance"

// IsAppliance reports whether the listener is for old devices.
func (l *Listener) IsAppliance() bool { return l.Profile == Appliance }

// IsOld reports a version that RFC 8996 has retired.
func (v TLSVersion) IsOld() bool { return v != 0 && v < tls.VersionTLS12 }

// Appliances reports whether any listener is for old devices.
func (c *Config) Appliances() bool {
	for i := range c.Listeners {
		if c.Listeners[i].IsAppliance() {
			return true
		}
	}
	return false
}

// CompanionOptions is what package certs needs for the RSA certificate of listeners for old devices, and whether they
// need one: self-signed certificates are of both kinds by themselves.
func (c *Config) CompanionOptions(log *slog.Logger) (o certs.Options, wanted bool) {
	o = c.CertOptions(log)
	wanted = c.Appliances() && (!selfSigned(c) || c.TLS.RSACertFile != "")
	o.CertFile, o.KeyFile = c.TLS.RSACertFile, c.TLS.RSAKeyFile
	return o, wanted
}

// selfSigned reports whether the listeners make their certificate themselves.
func selfSigned(c *Config) bool {
	return c.TLS.CertFile == "" && c.TLS.KeyFile == "" && c.TLS.ACME == nil
}

func (v *validator) profile(key string, l *Listener) {
	switch l.Profile {
	case "standard":
		v.currentTLS(key, l)
	case Appliance:
		v.appliance(key, l)
	default:
		v.fail(key+".profile", `unknown profile %q, write "standard" or "appliance"`, l.Profile)
	}
}

// currentTLS keeps old TLS away from listeners that are not for old devices.
func (v *validator) currentTLS(key string, l *Listener) {
	if l.MinVersion.IsOld() && v.doc.has(key+".min_version") {
		v.fail(key+".min_version", `%q is for old devices alone, write profile = "appliance" and networks too, or `+
			`"1.2"`, l.MinVersion)
	}
}

// appliance checks a listener for old devices, whose weakness must not reach beyond their own network.
func (v *validator) appliance(key string, l *Listener) {
	v.limited(key, `profile = "appliance"`, "profile", l)
	if l.MinVersion.IsOld() && l.TLS != NoTLS && v.doc.has(key+".min_version") {
		v.warn(key+".min_version", "who can listen to TLS %s between a device and this listener may read its password "+
			"(RFC 8996): keep it for devices that know nothing newer, with accounts that may do little", l.MinVersion)
	}
	for i, n := range l.Networks {
		if a := n.Addr(); n.IsValid() && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			v.warn(element(key+".networks", i), `%s is reached across the Internet, and profile = "appliance" takes `+
				"weak encryption: write the devices' own network", n)
		}
	}
}

// rsaPair checks the RSA certificate beside the other.
func (v *validator) rsaPair() {
	t := v.TLS
	v.pair("", "tls.rsa_cert_file", t.RSACertFile, "tls.rsa_key_file", t.RSAKeyFile)
	if t.RSACertFile != "" && !v.Appliances() {
		v.warn("tls.rsa_cert_file", `has no effect: it is for listeners with profile = "appliance", and there is none`)
	}
	if v.doc.has("tls.min_version") && t.MinVersion.IsOld() {
		v.fail("tls.min_version", `%q is for old devices alone, write it at a [[listener]] with profile = "appliance"`,
			t.MinVersion)
	}
}
