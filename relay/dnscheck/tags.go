package dnscheck

import (
	"fmt"
	"strings"
)

// tag is a name and its value in a DKIM or DMARC record (RFC 6376 §3.2).
type tag struct{ name, value string }

// tags is a record's list, in its order.
type tags []tag

// parseTags reads "a=b; c=d". Blanks around names, values and semicolons do not count. The error names what is wrong.
func parseTags(text string) (tags, error) {
	var list tags
	for part := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if !ok {
			return list, fmt.Errorf("%q has no =", clean(strings.TrimSpace(part)))
		}
		if !isTagName(name) {
			return list, fmt.Errorf("%q is not the name of a tag", clean(name))
		}
		if list.has(name) {
			return list, fmt.Errorf("the tag %s stands twice", clean(name))
		}
		list = append(list, tag{name, strings.TrimSpace(value)})
	}
	return list, nil
}

func isTagName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	})
}

func (t tags) has(name string) bool {
	for _, tag := range t {
		if tag.name == name {
			return true
		}
	}
	return false
}

// get returns a value, "" if there is none.
func (t tags) get(name string) string {
	for _, tag := range t {
		if tag.name == name {
			return tag.value
		}
	}
	return ""
}

// list returns the parts of a value with colons or commas, in lower case.
func (t tags) list(name, separator string) []string {
	var parts []string
	for part := range strings.SplitSeq(t.get(name), separator) {
		if part = strings.ToLower(strings.TrimSpace(part)); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}
