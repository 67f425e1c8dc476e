package dnscheck

import (
	"slices"
	"strings"

	"postern/mail"
	"postern/relay/sign"
)

// Record is a DNS record to publish, ready to paste.
type Record struct {
	Name     string   `json:"name"` // whole, without a dot at the end
	Type     string   `json:"type"`
	Value    string   `json:"value"`              // as the form of a DNS provider takes it
	ZoneLine string   `json:"zone_line"`          // as a line of a zone file
	Replaces []string `json:"replaces,omitempty"` // the values that it takes the place of, shortened
	Code     string   `json:"code"`               // of the finding that asks for it
	Note     string   `json:"note,omitempty"`     // such as who has to publish it
}

// publish adds a record to those that are to be published.
func (c *notes) publish(r Record) {
	same := func(o Record) bool { return o.Name == r.Name && o.Type == r.Type && o.Value == r.Value }
	if slices.ContainsFunc(c.records, same) {
		return
	}
	r.ZoneLine = r.Name + ". IN " + r.Type + " " + zoneData(r)
	for i, old := range r.Replaces {
		r.Replaces[i] = mail.Printable(mail.Cut(old, maxWhat))
	}
	c.records = append(c.records, r)
}

func zoneData(r Record) string {
	if r.Type != "TXT" {
		return r.Value + "."
	}
	parts := sign.SplitRecord(r.Value)
	for i, p := range parts {
		parts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p) + `"`
	}
	if len(parts) > 1 {
		return "( " + strings.Join(parts, " ") + " )"
	}
	return parts[0]
}

// publishSPF suggests a record that lets all senders send: what stands there already, and what is missing.
func (c *check) publishSPF() {
	if !c.spf.known {
		return
	}
	var missing []string
	for _, s := range c.o.Senders {
		verdict, _ := c.spf.of(s)
		switch {
		case verdict != spfFail || slices.Contains(s.OwnDomains, c.o.Domain):
		case len(s.Addresses) > 0:
			for _, addr := range s.Addresses {
				if addr.Is4() {
					missing = append(missing, "ip4:"+addr.String())
				} else {
					missing = append(missing, "ip6:"+addr.String())
				}
			}
		case s.Include != "":
			missing = append(missing, "include:"+s.Include)
		}
	}
	code := ""
	for _, candidate := range []string{"spf-several", "spf-syntax", "spf-plus-all", "spf-no-all", "spf-after-all",
		"spf-neutral-all", "spf-unreadable", "spf-none", "spf-include-missing", "spf-address-missing"} {
		if c.tell.told[candidate] {
			code = candidate
			break
		}
	}
	if code == "" || code == "spf-none" && len(missing) == 0 {
		return
	}
	merged := mergeSPF(c.spf.found, missing)
	if len(c.spf.found) == 1 && merged == c.spf.found[0] {
		return
	}
	r := Record{Name: c.o.Domain, Type: "TXT", Value: merged, Code: code, Replaces: slices.Clone(c.spf.found)}
	if parsed, err := parseSPF(merged); err == nil && c.spf.walkOf(c.o.Domain, parsed).lookups > spfLookups {
		r.Note = "it needs more than ten look-ups: take out what you no longer use"
	}
	c.tell.publish(r)
}

// mergeSPF makes one record of several, with further mechanisms before its end. Terms that cannot be read are left out.
// The weakest end that is still safe is kept: -all where every record had it, ~all otherwise.
func mergeSPF(records, missing []string) string {
	terms := []string{spfVersion}
	end, redirect := "", ""
	add := func(t string) {
		if !slices.Contains(terms, t) {
			terms = append(terms, t)
		}
	}
	for _, record := range records {
		for word := range strings.FieldsSeq(strings.TrimSpace(record[len(spfVersion):])) {
			t, err := parseTerm(word)
			switch {
			case err != nil:
			case t.modifier && t.name == "redirect":
				redirect = word
			case t.name == "all" && !t.modifier:
				if t.qualifier == '-' && end == "" {
					end = "-all"
				} else if t.qualifier != '-' {
					end = "~all"
				}
			default:
				add(word)
			}
		}
	}
	for _, m := range missing {
		add(m)
	}
	if end == "" && redirect != "" && len(records) == 1 {
		return strings.Join(append(terms, redirect), " ")
	}
	if end == "" {
		end = "~all"
	}
	return strings.Join(append(terms, end), " ")
}

// publishDMARC suggests a first record where none counts.
func (c *check) publishDMARC() {
	for _, code := range []string{"dmarc-several", "dmarc-syntax", "dmarc-unreadable", "dmarc-none"} {
		if c.tell.told[code] {
			c.tell.publish(Record{Name: "_dmarc." + c.o.Domain, Type: "TXT",
				Value: "v=DMARC1; p=none; rua=mailto:" + c.o.ReportTo, Code: code})
			return
		}
	}
	if c.tell.told["dmarc-misplaced"] && c.dmarc.at != c.o.Domain {
		texts, _ := c.see.texts(c.o.Domain)
		if i := slices.IndexFunc(texts, isDMARC); i >= 0 && texts[i] == mail.Printable(texts[i]) {
			c.tell.publish(Record{Name: "_dmarc." + c.o.Domain, Type: "TXT", Value: texts[i],
				Code: "dmarc-misplaced"})
		}
	}
}
