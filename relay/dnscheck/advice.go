package dnscheck

import (
	"fmt"
	"strings"

	"postern/mail"
	"postern/relay/finding"
)

// Bounds of what is told: octets of a sentence, and cases of one code.
const (
	maxWhat = 800
	maxEach = 5
)

// advice is what is said of a code beside the sentence that names the case: why it matters, and what to do.
type advice struct {
	weight   finding.Weight
	why, fix string
}

// advices are by code. Every code that a check notes stands here.
var advices = map[string]advice{
	"dns-nxdomain": {finding.Danger, "Receivers refuse mail of a domain that does not exist.",
		"Look whether the name is spelt rightly, and whether the domain was paid for: its registrar says so."},
	"dns-servfail": {finding.Danger, "Receivers cannot look the domain up either, and put off or refuse its mail.",
		"Often DNSSEC is broken: at the registrar, remove old DS records or set those of your DNS provider. Show " +
			"this line to whoever runs your DNS."},
	"dns-refused": {finding.Fault, "Without an answer nothing can be checked here; other resolvers may do better.",
		"Ask by another resolver, such as: postern dns --resolver 9.9.9.9:53, or allow this machine at yours."},
	"dns-timeout": {finding.Fault, "Without an answer nothing can be checked here, and Postern itself needs names too.",
		"See whether the resolver in /etc/resolv.conf runs and whether a firewall lets port 53 through."},
	"dns-truncated": {finding.Fault, "Long records, such as DKIM keys, cannot be read here, and perhaps by receivers.",
		"Open TCP port 53 beside UDP in the firewall and at the DNS server."},
	"dns-lame": {finding.Fault, "Some look-ups ask this server and get nothing, so mail is put off now and then.",
		"Remove it from the name servers at the registrar, or set the domain up on it."},
	"dns-lame-all": {finding.Danger, "The domain is as good as gone: neither mail nor web finds it.",
		"At the registrar, enter the name servers that your DNS provider gives you."},
	"dns-server-silent": {finding.Fault, "Look-ups that ask it take long, and some fail.",
		"Tell whoever runs the server, or remove it from the name servers at the registrar."},
	"dns-authority-unreachable": {finding.Advice, "Only what the resolver says was looked at. A change of minutes " +
		"ago may not show.", "Allow this machine to ask other servers on port 53, by UDP and TCP, or wait an hour " +
		"after a change before you look again."},
	"dns-servers-differ": {finding.Fault, "Receivers get one answer or the other, by chance.",
		"Wait some minutes after a change. If it stays, the servers do not copy from each other: tell your DNS " +
			"provider."},
	"dns-split-horizon": {finding.Advice, "What you see in the office is not what receivers see. Receivers count, " +
		"and the rest of this report is about what they see.",
		"Make changes at your public DNS provider. If the office needs the record too, enter it in both."},
	"dns-stale": {finding.Advice, "Receivers that asked before the change have the old answer too, for as long.",
		"Wait, then look again. The rest of this report is about the new record."},
	"dns-cname-loop": {finding.Danger, "The name has no records for anybody.",
		"Remove one of the CNAME records, or correct where it leads."},
	"dns-cname-long": {finding.Fault, "Many receivers stop before the end and see no record.",
		"Let the first CNAME lead directly to the last name."},
	"dns-dangling": {finding.Fault, "Receivers find no record there.",
		"Correct the name behind the CNAME; a missing dot at the end, or the domain twice, is the usual reason."},
	"dns-exhausted": {finding.Advice, "Nothing is wrong with that as such, but the report has gaps.",
		"Look again; if it stays, the domain's SPF record probably refers to far too much."},
	"dns-malformed": {finding.Fault, "Without an answer nothing can be checked here.",
		"A firewall or router may be changing DNS. Ask by another resolver: postern dns --resolver 9.9.9.9:53"},
	"dns-unreachable": {finding.Fault, "Without DNS nothing can be checked, and mail cannot leave.",
		"Check the network of this machine and /etc/resolv.conf."},

	"spf-none": {finding.Fault, "SPF lists who may send mail of the domain. Large receivers want it, even where " +
		"DKIM passes.", "Publish one that names everybody who sends as you: the record below, with what else " +
		"sends, or " +
		"what your provider tells you."},
	"spf-absent": {finding.Advice, "Your provider puts its own address into the envelope, so receivers ask for its " +
		"SPF. " +
		"Without a record of yours, forgers can use the domain there.", "If nobody else sends as the domain, publish " +
		"v=spf1 -all; if your mailbox provider does, publish the record that it shows."},
	"spf-several": {finding.Danger, "With more than one, receivers treat SPF as broken, and mail counts as unproven.",
		"Remove them all and publish the one below, which joins them."},
	"spf-syntax": {finding.Danger, "A record with a mistake counts as broken as a whole.",
		"Correct it, or replace it with the one below, which leaves out what cannot be read."},
	"spf-unreadable": {finding.Fault, "To receivers the record is just some text.",
		"It must begin with v=spf1 and a blank, without quotes of your own: DNS adds them itself."},
	"spf-lookups": {finding.Danger, "Receivers stop at ten and treat SPF as broken.",
		"Remove the include: terms of services that you no longer use. Each include: also costs what it includes."},
	"spf-lookups-near": {finding.Advice, "If one of the services that it includes adds a look-up, SPF breaks " +
		"overnight.",
		"Remove the include: terms of services that you no longer use."},
	"spf-void": {finding.Fault, "Receivers allow two look-ups that find nothing; with more, many treat SPF as broken.",
		"Remove these terms, or correct their spelling."},
	"spf-long": {finding.Fault, "Some receivers cannot read so long a record.",
		"Remove what you no longer use, or put part of it into another name and include: that."},
	"spf-include-missing": {finding.Fault, "Receivers see mail that comes from there as not allowed.",
		"Replace the record with the one below."},
	"spf-address-missing": {finding.Fault, "Receivers see mail from this address as not allowed.",
		"Replace the record with the one below."},
	"spf-plus-all": {finding.Danger, "Anybody can send as you and passes. Some receivers punish this.",
		"Replace it with ~all, as below."},
	"spf-neutral-all": {finding.Advice, "Forged mail is treated like mail of a domain without SPF.",
		"Once all your senders are in it, end it with ~all."},
	"spf-no-all": {finding.Advice, "Forged mail is treated like mail of a domain without SPF.",
		"Add ~all at its end, as below."},
	"spf-after-all": {finding.Fault, "What was meant to be allowed there is not.", "Move all to the end, as below."},
	"spf-redirect-ignored": {finding.Advice, "The record that it points to is never read.",
		"Remove either redirect= or the all."},
	"spf-ptr": {finding.Advice, "It is slow, and some receivers ignore it (RFC 7208 §5.5).",
		"Name the addresses with ip4: and ip6: instead."},
	"spf-wide": {finding.Fault, "Strangers in that network can send as you.",
		"Name only the addresses that you use; look for a mistyped length behind the slash."},
	"spf-loop": {finding.Danger, "Receivers treat SPF as broken.", "Remove the include: or redirect= that leads back."},
	"spf-include-none": {finding.Danger, "An include: without a record behind it makes SPF broken as a whole.",
		"Correct its spelling, or remove it if the service is no longer used."},
	"spf-include-broken": {finding.Danger, "A mistake there breaks your record too.",
		"Tell the service, or remove the include: until it is mended."},
	"spf-mx-many": {finding.Danger, "Receivers treat SPF as broken with more than ten.",
		"Name the addresses with ip4: and ip6: instead of mx."},
	"spf-unavailable": {finding.Advice, "Receivers that meet the same put mail off and try again.",
		"Look again later. If it stays, tell the service, or remove the term."},

	"dkim-none": {finding.Fault, "Mail is not signed: it fails wherever it is forwarded, and large receivers trust " +
		"it less.", "Make keys: postern dkim add, and publish the records that it prints."},
	"dkim-waiting": {finding.Fault, "Mail is not signed until then.", "Publish the records below. Postern then signs " +
		"by itself; postern dkim check looks at once."},
	"dkim-unused": {finding.Advice, "The key signs nothing, because the provider signs itself or changes messages.",
		"Set up DKIM at the provider instead, and remove the key if nothing else uses it."},
	"dkim-ed25519-only": {finding.Fault, "Microsoft and Yahoo count such mail as unsigned or badly signed.",
		"Add an RSA key: postern dkim add with --algorithm rsa-2048"},
	"dkim-missing": {finding.Danger, "Mail is signed with a key that nobody can look up, which counts as unsigned.",
		"Publish the record below."},
	"dkim-doubled": {finding.Danger, "Receivers do not look there: your DNS provider adds the domain itself.",
		"In the form, enter only the part before the domain, and remove the wrong record."},
	"dkim-cname-dangling": {finding.Danger, "Receivers find no key there.",
		"Correct where the CNAME leads, or replace it with the record below."},
	"dkim-several": {finding.Danger, "Receivers do not choose: the signature counts as broken.",
		"Remove the old ones and leave one."},
	"dkim-cut": {finding.Danger, "With part of a key no signature verifies.",
		"A string in DNS has at most 255 characters. Enter the whole value; if the form refuses it, in several " +
			"strings, as in the line below."},
	"dkim-syntax": {finding.Danger, "Receivers cannot read the key.", "Replace it with the record below."},
	"dkim-revoked": {finding.Danger, "Mail signed with a revoked key counts as badly signed.",
		"Publish the record below, or make a new key: postern dkim add"},
	"dkim-quoted": {finding.Danger, "Quotes and backslashes became part of the key.",
		"Enter the value again without any quotes: the form adds them itself."},
	"dkim-wrong-type": {finding.Danger, "Receivers read the key as one of another kind, and no signature verifies.",
		"Replace it with the record below."},
	"dkim-short": {finding.Danger, "So short a key could be forged.",
		"Make a new key: postern dkim add, and publish its record."},
	"dkim-other-key": {finding.Danger, "No signature of Postern verifies with it.",
		"Replace it with the record below. If another server signs with that key, give Postern a selector of its own."},
	"dkim-hash": {finding.Danger, "Receivers reject signatures that the record does not allow.",
		"Remove h= from the record, or replace it with the one below."},
	"dkim-service": {finding.Danger, "Receivers do not use the key for mail.",
		"Remove s= from the record, or replace it with the one below."},
	"dkim-sample": {finding.Danger, "Receivers will find the same.", "Replace it with the record below."},
	"dkim-testing": {finding.Advice, "Some receivers treat mail of a domain that only tests as unsigned.",
		"Remove t=y from the record."},
	"dkim-weak": {finding.Advice, "It passes today; 2048 bits are what is asked for (RFC 8301).",
		"Make a new key: postern dkim add with --algorithm rsa-2048"},
	"dkim-provider-missing": {finding.Fault, "The provider then signs as itself, which proves nothing about your " +
		"domain.",
		"Switch DKIM on for the domain at the provider, and publish the records that it shows."},
	"dkim-provider-partly": {finding.Advice, "When the provider changes its key, signatures may fail.",
		"Publish all records that the provider shows for the domain."},
	"dkim-provider-broken": {finding.Fault, "Signatures made by it do not verify.",
		"Copy the record anew from the provider."},

	"dmarc-none": {finding.Fault, "DMARC tells receivers what to do with forged mail. Large receivers want every " +
		"domain that sends to have it.", "Publish the record below. It only watches, and breaks nothing."},
	"dmarc-several": {finding.Fault, "Receivers then act as if there were none.",
		"Remove all but one, or replace them with the record below."},
	"dmarc-syntax": {finding.Fault, "Receivers may ignore it.", "Correct it, or begin anew with the record below."},
	"dmarc-unreadable": {finding.Fault, "To receivers the record is just some text.",
		"It must begin with v=DMARC1; in exactly this spelling, without quotes of your own."},
	"dmarc-no-policy": {finding.Advice, "It counts as p=none, and older receivers ignore it.",
		"Add p=none, p=quarantine or p=reject after v=DMARC1;"},
	"dmarc-misplaced": {finding.Fault, "Receivers look only under _dmarc.",
		"Move it: the name of the record is _dmarc, followed by the domain."},
	"dmarc-monitor": {finding.Advice, "Forged mail of the domain still arrives.",
		"Read the reports for some weeks. Once all your own mail passes, change it to p=quarantine, later p=reject."},
	"dmarc-testing": {finding.Advice, "Receivers act one step milder than the policy says.",
		"Once all your own mail passes, remove t=y."},
	"dmarc-subdomains": {finding.Advice, "Forgers can use any name below the domain.",
		"Remove sp= and np=, so that the policy holds for all, unless subdomains send mail that fails."},
	"dmarc-psd": {finding.Fault, "Receivers take the domain for a registry, and its subdomains for strangers to it.",
		"Remove psd=y."},
	"dmarc-old-tags": {finding.Advice, "RFC 9989 took them out; receivers ignore them by and by. pct=0 no longer " +
		"means test.", "Remove them; for testing write t=y."},
	"dmarc-no-reports": {finding.Advice, "You do not learn who sends as you, and which of your own mail fails.",
		"Add rua=mailto: and an address to the record."},
	"dmarc-report-address": {finding.Fault, "Nobody sends reports there.",
		"Write rua=mailto: and an address; several with commas between, each with its own mailto:."},
	"dmarc-report-denied": {finding.Fault, "Receivers send no reports to a stranger that has not agreed.",
		"Ask whoever gets the reports to publish the record below, or name an address of your own."},
	"dmarc-strict-dkim": {finding.Danger, "By adkim=s a signature of a parent domain does not count.",
		"Remove adkim=s from the DMARC record, or make a key for the domain itself: postern dkim add"},

	"mx-none": {finding.Fault, "Replies and reports of failure are lost, and some receivers refuse mail that " +
		"cannot be answered.", "Publish the MX records that your mailbox provider shows."},
	"mx-implicit": {finding.Advice, "A web server seldom takes mail, so replies are lost.",
		"Publish the MX records that your mailbox provider shows."},
	"mx-null": {finding.Fault, "Replies and reports of failure are lost, and some receivers refuse mail that " +
		"cannot be answered.", "If the domain shall send mail, replace it with the MX records of your mailbox " +
		"provider."},
	"mx-null-mixed": {finding.Fault, "Receivers may believe either.", "Remove the MX record \".\"."},
	"mx-dead": {finding.Fault, "Replies are lost.", "Correct the MX records: copy them from your mailbox " +
		"provider."},
	"mx-address": {finding.Fault, "An MX record must hold a name; mail servers do not use it.",
		"Give the server a name with an A record, and write that name into the MX record."},
	"mx-cname": {finding.Advice, "Some mail servers refuse that (RFC 2181 §10.3).",
		"Write the name that the CNAME leads to into the MX record."},
	"mx-unresolvable": {finding.Fault, "Replies wait, or are lost.",
		"Correct its spelling in the MX record, or remove it."},

	"ptr-missing": {finding.Danger, "Large receivers refuse mail from addresses without a name.",
		"Ask your internet provider to set the reverse DNS (PTR) of the address to the name of this server."},
	"ptr-unconfirmed": {finding.Danger, "Large receivers refuse mail where name and address do not confirm each other.",
		"Let the name's A or AAAA record lead to the address, or have the PTR changed."},
	"ptr-hostname": {finding.Advice, "Some filters like both to be the same.",
		"Write that name as hostname in relay.toml, or have the PTR changed."},
	"address-unknown": {finding.Advice, "SPF, the name of the address and blocklists could not be checked.",
		"Name the address: postern dns --address, or let hostname in relay.toml resolve to it."},
	"dnsbl-listed": {finding.Danger, "Many receivers refuse mail from listed addresses.",
		"Find and stop what got it listed, often a stolen password, then ask for removal on the list's web site."},
	"dnsbl-policy": {finding.Danger, "Receivers refuse mail from home and office connections.",
		"Send through a provider with a login, or have your internet provider remove the address from the list."},
	"dnsbl-refused": {finding.Advice, "Whether the address is listed is not known.",
		"Use a resolver of your own instead of a public one, or look the address up on the list's web site."},
	"dnsbl-broken": {finding.Advice, "Whether the address is listed is not known.",
		"Use a resolver that does not replace answers, such as your own."},
	"dnsbl-unavailable": {finding.Advice, "Whether the address is listed is not known.", "Look again later."},

	"outcome-dkim": {finding.Healthy, "", ""},
	"outcome-spf": {finding.Advice, "It fails where a receiver forwards it, and for receivers that want both.",
		"Let it be signed too: postern dkim add, or DKIM for the domain at the provider."},
	"outcome-fails": {finding.Danger, "Receivers cannot tell it from forged mail: it lands in spam or is refused.",
		"Publish the record for DKIM or for SPF that is missing or wrong; one of the two is enough. postern dns " +
			"shows " +
			"both, and so does the page Domains of the console."},
	"outcome-refused": {finding.Danger, "The DMARC record of the domain asks receivers to refuse such mail or to " +
		"take it for spam, and they do.", "Publish the record for DKIM or for SPF that is missing or wrong. Until " +
		"then " +
		"p=none in the DMARC record lets it through."},
	"outcome-unknown": {finding.Advice, "What proves it cannot be seen from DNS alone.",
		"Send a message to a mailbox elsewhere and look at its headers for dkim=pass, or see at the provider " +
			"whether the domain is verified."},

	"spf-ok":   {finding.Healthy, "", ""},
	"dkim-ok":  {finding.Healthy, "", ""},
	"dmarc-ok": {finding.Healthy, "", ""},
	"mx-ok":    {finding.Healthy, "", ""},
	"clients-missing": {finding.Advice, "People have to type servers and ports into their mail programs, which " +
		"could find them by themselves.", "Publish the records below. Mail itself does not need them."},
	"clients-differ": {finding.Fault, "Mail programs find other settings than those of [autoconfig], or none: PACC " +
		"is believed only with the right digest.", "Replace the records by those below."},
}

// notes are what a check has found so far.
type notes struct {
	domain   string
	told     map[string]bool // codes
	findings []finding.Finding
	records  []Record // to publish
}

// note adds a finding, once, and of many with one code the first.
func (c *notes) note(code, format string, args ...any) {
	a := advices[code]
	f := finding.Finding{Code: code, Weight: a.weight, Subject: c.domain,
		What: mail.Printable(mail.Cut(fmt.Sprintf(format, args...), maxWhat)),
		Why:  a.why, Fix: a.fix}
	c.told[code] = true
	alike := 0
	for _, known := range c.findings {
		if known == f {
			return
		}
		if known.Code == code {
			alike++
		}
	}
	if alike < maxEach {
		c.findings = append(c.findings, f)
	}
}

// toldOf reports whether something is wrong among the codes with a prefix.
func (c *notes) toldOf(prefix string) bool {
	for code := range c.told {
		if strings.HasPrefix(code, prefix) && advices[code].weight < finding.Healthy {
			return true
		}
	}
	return false
}

// attach puts the records to publish below what asks for them.
func (c *notes) attach() {
	for _, r := range c.records {
		for i := range c.findings {
			f := &c.findings[i]
			if f.Code == r.Code && (!strings.HasPrefix(r.Code, "dkim-") || r.Code == "dkim-provider-missing" ||
				strings.Contains(f.What, r.Name)) {
				f.Fix += "\n" + r.ZoneLine
			}
		}
	}
}
