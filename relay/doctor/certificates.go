package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/certs"
	"postern/relay/finding"
	"postern/relay/monitor"
	"postern/relay/outbound"
	"postern/relay/status"
	"postern/relay/trace"
)

// certificateExam looks at certificates.
type certificateExam struct{ *exam }

// certificates looks at what the listeners present and at what devices made of it, and at what upstreams are shown.
func (x certificateExam) certificates(ctx context.Context) (list []finding.Finding) {
	infos, byACME, err := x.presented(ctx)
	list = append(list, x.acme(byACME)...)
	if err != nil {
		list = append(list, broken(err)...)
	}
	for _, info := range infos {
		list = append(list, x.certificate(info)...)
	}
	if len(infos) == 1 && strings.HasPrefix(infos[0].Key, "ECDSA") && !infos[0].SelfSigned {
		list = append(list, found(codeCertificateECDSA, finding.Advice, infos[0].File, "There is an ECDSA certificate "+
			"only.", "Scanners, copiers and machines from before about 2015 know RSA certificates only and cannot "+
			"connect.", "If such a device cannot connect, get a certificate with an RSA key of 2048 bits (certbot: "+
			"--key-type rsa; by ACME: key_types = [\"ecdsa\", \"rsa\"] in [tls.acme]). Nothing else need change."))
	}
	if len(byACME) == 0 { // else there is a better one, or acme says why not
		list = append(list, selfSigned(infos)...)
	}
	list = append(list, x.shownToUpstreams()...)
	return append(list, x.handshakes(ctx)...)
}

func broken(err error) (list []finding.Finding) {
	faults, ok := errors.AsType[certs.Faults](err)
	texts := []string{err.Error()}
	if ok {
		texts = nil
		for _, f := range faults {
			texts = append(texts, f.Text)
		}
	}
	for _, text := range texts {
		list = append(list, found(codeCertificateBroken, finding.Danger, "certificate", "The certificate of the "+
			"listeners cannot be used: "+sentence(said(text)), "Postern does not start with it. One that runs still "+
			"presents what it read before, which may have expired.", "Put a certificate and its key there that belong "+
			"together and are valid, then run: postern check"))
	}
	return list
}

// certificate says what is wrong with one of ours.
func (x certificateExam) certificate(info certs.Info) (list []finding.Finding) {
	add := func(code string, w finding.Weight, what, why, fix string) {
		list = append(list, found(code, w, info.File, what, why, fix))
	}
	for i, text := range info.Warnings {
		what := "About the certificate of the listeners: " + sentence(said(text))
		switch info.Kinds[i] {
		case certs.WrongName:
			add(codeCertificateName, finding.Danger, what,
				"Mail programs warn, and most devices do not connect, when the "+
					"name that they are set to is not in the certificate.",
				"Get a certificate for "+x.c.Hostname+", or let clients use a name that it covers and write it as "+
					"hostname in "+x.Path)
		case certs.WrongUsage:
			add(codeCertificateUsage, finding.Danger, what, "Mail programs and devices refuse it.",
				"Get a certificate for a server (TLS web server authentication).")
		case certs.WrongChain:
			add(codeCertificateChain, finding.Danger, what, "Windows often finds what is missing by itself; phones, "+
				"scanners and copiers do not, and refuse the certificate.",
				"Write the whole chain to "+info.File+", your own certificate first (certbot: fullchain.pem).")
		case certs.WrongKey:
			add(codeCertificateKey, finding.Fault, what, "Some mail programs and devices cannot connect.",
				"Get one with an RSA key of 2048 bits, which everything knows.")
		}
	}
	if info.RenewalLate(x.now) {
		add(codeCertificateEnds, finding.Danger, "The certificate of the listeners "+monitor.EndsInWords(info.NotAfter,
			x.now)+" and should have been renewed by now.", "Mail programs and devices do not connect any more then.",
			"See what is in the way: postern cert list\nMend that, then run: postern cert renew")
	}
	if !info.Issued && (!info.SelfSigned || x.c.TLS.CertFile != "") { // ours are renewed by themselves
		if f, ends := x.ends(codeCertificateEnds, info.File, "The certificate of the listeners", info.NotAfter,
			"Mail programs and devices do not connect any more then.",
			"Renew it and write the new one to the same file; Postern reads it again by itself."); ends {
			list = append(list, f)
		}
	}
	list = append(list, x.chain(info)...)
	if f, unknown := x.unknownAuthority(info); unknown {
		list = append(list, f)
	}
	if finding.Worst(list) > finding.Fault {
		list = append(list, fine(codeCertificateOK, info.File, "Valid until %s, %s, for %s.",
			info.NotAfter.UTC().Format(time.DateOnly), info.Key, said(strings.Join(info.Names, ", "))))
	}
	return list
}

// unknownAuthority says that nobody whom this machine knows vouches for a certificate whose chain looks whole.
func (x certificateExam) unknownAuthority(info certs.Info) (finding.Finding, bool) {
	if info.SelfSigned || len(info.Chain) == 0 || slices.Contains(info.Kinds, certs.WrongChain) {
		return finding.Finding{}, false
	}
	between := x509.NewCertPool()
	for _, c := range info.Chain[1:] {
		between.AddCert(c)
	}
	_, err := info.Chain[0].Verify(x509.VerifyOptions{Intermediates: between, Roots: x.machine.roots,
		CurrentTime: x.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		return finding.Finding{}, false // other faults of it are told by others
	}
	return found(codeCertificateAuthority, finding.Advice, info.File,
		"This machine does not know the authority that made "+
			"the certificate ("+said(info.Chain[len(info.Chain)-1].Issuer.String())+").",
		"That is right for an authority of your own, which clients must be given. For a public one, certificates are "+
			"missing in the file, and devices refuse it.",
		"For a public authority write the whole chain to "+info.File+" (certbot: fullchain.pem). For one of your own, "+
			"load its certificate into mail programs and devices."), true
}

// selfSigned says once that nobody vouches for what clients see.
func selfSigned(infos []certs.Info) []finding.Finding {
	if len(infos) == 0 || !infos[0].SelfSigned {
		return nil
	}
	fix := "Have Postern get one from an authority such as Let's Encrypt ([tls.acme], docs/certificates.md), or " +
		"write tls.cert_file and tls.key_file. Until then compare this fingerprint when a program asks:"
	for _, info := range infos {
		fix += "\n" + info.Fingerprint + " (" + info.Key + ")"
	}
	return []finding.Finding{found(codeCertificateSelfSigned, finding.Advice, infos[0].File,
		"No authority vouches for "+
			"the certificate of the listeners: it is signed by itself.",
		"Mail programs do not trust it until somebody tells them to, and some devices never do.", fix)}
}

// chain looks at what old and new clients do with the signatures and dates of a chain.
func (x certificateExam) chain(info certs.Info) (list []finding.Finding) {
	for i, c := range info.Chain {
		itself := string(c.RawIssuer) == string(c.RawSubject)
		name := said(c.Subject.String())
		if weak := []x509.SignatureAlgorithm{x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA,
			x509.DSAWithSHA1}; slices.Contains(weak, c.SignatureAlgorithm) && !itself {
			list = append(list, found(codeCertificateSHA1, finding.Danger, info.File, "The certificate of "+name+" is "+
				"signed with SHA-1.", "Mail programs of today refuse such a certificate.",
				"Get a new one; no authority signs with SHA-1 any more."))
		}
		if i == 0 || !x.now.After(c.NotAfter) {
			continue
		}
		list = append(list, found(codeCertificateChainEnded, finding.Fault, info.File, fmt.Sprintf("In the file the "+
			"certificate of the authority %s ended on %s.", name, c.NotAfter.UTC().Format(time.DateOnly)),
			"Programs of today look for another way; old devices take the one in the file, say that a certificate has "+
				"expired, and do not connect.",
			"Renew your certificate, and write the chain that comes with the new one to "+info.File+"."))
	}
	return list
}

// shownToUpstreams looks at the certificates that providers know us by.
func (x certificateExam) shownToUpstreams() (list []finding.Finding) {
	for _, u := range x.c.Upstreams {
		if u.CertFile == "" {
			continue
		}
		end, err := outbound.CertificateEnd(u.CertFile)
		if err != nil {
			continue // config says so
		}
		f, soon := x.ends(codeCertificateEnds, u.CertFile, "The certificate that upstream "+u.Name+" knows us by", end,
			"The provider takes no mail from us then.",
			"Renew it, make it known to the provider, and write it to the same file.")
		if !soon {
			f = fine(codeCertificateOK, u.CertFile, "Upstream %s knows us by it for %d days more.", u.Name,
				status.Days(end, x.now))
		}
		list = append(list, f)
	}
	return list
}

// What the trace is asked about handshakes.
const (
	handshakeSpan = 7 * 24 * time.Hour
	maxEvents     = 2000
	maxClients    = 10
)

// handshakes says which clients could not agree with us on TLS in the last week, and why.
func (x certificateExam) handshakes(ctx context.Context) (list []finding.Finding) {
	s, err := x.openStore(ctx)
	if err != nil || s == nil {
		return nil // store says so
	}
	defer s.Close()
	events, err := s.Events(ctx, trace.Query{Kinds: []trace.Kind{trace.Refused}, Since: x.now.Add(-handshakeSpan),
		Limit: maxEvents})
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	for _, e := range slices.Backward(events) { // the newest first
		code, why, fix := handshakeTrouble(e.Detail)
		if code == "" || seen[e.Client] || len(seen) >= maxClients {
			continue
		}
		seen[e.Client] = true
		list = append(list, found(code, finding.Fault, said(e.Client),
			fmt.Sprintf("A device or program at %s could not "+
				"connect to listener %s on %s: %s", said(e.Client), said(e.Listener),
				e.Time.Local().Format("2006-01-02 15:04"),
				sentence(said(e.Detail))), why, fix))
	}
	return list
}

// handshakeTrouble knows what package wire says of a failed handshake.
func handshakeTrouble(detail string) (code, why, fix string) {
	has := func(text string) bool { return strings.Contains(detail, text) }
	switch {
	case has("the client offers only"), has("no cipher suite in common"), has("no TLS version in common"),
		has("SSL 2.0 ClientHello"), has("no signature but SHA-1"):
		return codeDeviceOldTLS, "Its TLS is older than what is safe enough to carry a password.",
			"Look for new firmware of the device, or for a setting that switches TLS 1.2 on.\nIf there is " +
				"none, give such devices a [[listener]] of their own with profile = \"appliance\" and their " +
				"addresses in networks; docs/devices.md says what takes which TLS."
	case has("knows RSA certificates only"):
		return codeDeviceOldKey, "It cannot use the kind of key that the certificate has.",
			"Give such devices a [[listener]] of their own with profile = \"appliance\", which presents an RSA " +
				"certificate beside the other, or get one with an RSA key of 2048 bits for all (certbot: --key-type " +
				"rsa)."
	case has("it may not trust this certificate"), has("does not know the authority"), has("\"bad certificate\""),
		has("\"unknown certificate\""), has("said no"):
		return codeDeviceDistrusts,
			"It does not trust the certificate, or was set to another name than the certificate " +
				"has.", "Set it to a name that the certificate covers. If it is still refused, load the authority's " +
				"certificate into the device, or switch off its check of certificates."
	}
	return "", "", ""
}
