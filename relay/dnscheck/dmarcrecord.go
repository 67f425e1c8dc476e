package dnscheck

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dmarc"
)

// dmarcRecord is a DMARC record as RFC 9989 §4.7 reads it.
type dmarcRecord struct {
	text       string
	policy     string // p=
	subdomains string // sp=, p= unless it says otherwise
	missing    string // np=, sp= unless it says otherwise
	strictDKIM bool
	psd        string // y, n or u
	testing    bool   // t=y
	noPolicy   bool   // p= is not there
	reports    []string
	old        []string // tags that RFC 9989 took out
}

// isDMARC reports whether a TXT record begins as a DMARC record must.
func isDMARC(text string) bool {
	first, _, _ := strings.Cut(text, ";")
	name, value, ok := strings.Cut(first, "=")
	return ok && strings.TrimSpace(name) == "v" && strings.TrimSpace(value) == "DMARC1"
}

// looksLikeDMARC reports whether somebody meant a record to be one, and receivers do not see it.
func looksLikeDMARC(text string) bool {
	text = strings.ToLower(strings.Join(strings.Fields(strings.Trim(text, " \t\"'")), ""))
	return strings.HasPrefix(text, "v=dmarc") || strings.HasPrefix(text, "dmarc1") || strings.HasPrefix(text, "p=")
}

// parseDMARC reads a record. go-msgauth parses the tags that RFC 7489 had too; those of RFC 9989 are ours. The error
// says what is wrong for people.
func parseDMARC(text string) (dmarcRecord, error) {
	r := dmarcRecord{text: text}
	list, err := parseTags(text)
	if err != nil {
		return r, err
	}
	if !isDMARC(text) {
		return r, errors.New("it does not begin with v=DMARC1")
	}
	r.reports = addressList(list.get("rua"))
	r.noPolicy = !list.has("p")
	parsed := text
	if r.noPolicy { // RFC 9989 §4.7: with rua, p=none is meant
		if len(r.reports) == 0 {
			return r, errors.New("there is no p= with the policy")
		}
		parsed = "v=DMARC1; p=none; " + strings.TrimSpace(text)[strings.IndexByte(text, ';')+1:]
	}
	known, err := dmarc.Parse(parsed)
	if err != nil {
		return r, errors.New(strings.TrimPrefix(err.Error(), "dmarc: "))
	}
	r.policy = string(known.Policy)
	r.strictDKIM = known.DKIMAlignment == dmarc.AlignmentStrict
	if r.subdomains = string(known.SubdomainPolicy); r.subdomains == "" {
		r.subdomains = r.policy
	}
	for _, name := range []string{"pct", "rf", "ri"} {
		if list.has(name) {
			r.old = append(r.old, name)
		}
	}
	return r, r.readNew(list)
}

// readNew reads np, psd and t.
func (r *dmarcRecord) readNew(list tags) error {
	for _, t := range []struct {
		name, value string
		allowed     []string
		into        *string
	}{
		{"np", r.subdomains, []string{"none", "quarantine", "reject"}, &r.missing},
		{"psd", "u", []string{"y", "n", "u"}, &r.psd},
	} {
		*t.into = t.value
		if !list.has(t.name) {
			continue
		}
		*t.into = list.get(t.name)
		if !slices.Contains(t.allowed, *t.into) {
			return fmt.Errorf("%s=%s: it must be one of %s", t.name, clean(*t.into), strings.Join(t.allowed, ", "))
		}
	}
	switch v := list.get("t"); {
	case v == "y":
		r.testing = true
	case list.has("t") && v != "n":
		return fmt.Errorf("t=%s: it must be y or n", clean(v))
	}
	return nil
}

func addressList(value string) []string {
	var list []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}
