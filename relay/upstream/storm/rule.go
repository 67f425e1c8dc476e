package storm

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"postern/mail"
)

// Bounds of what a proposed rule says.
const (
	ruleWords   = 12
	exampleMost = 400
)

// Rule is the block of relay.toml that makes the account's fault out of the refusals of a storm, ready to be pasted
// behind the [[upstream]] that it is for.
func (s Storm) Rule(personal ...string) string {
	var b strings.Builder
	words := Words(s.Reply, personal...)
	fmt.Fprintln(&b, "[[upstream.rule]]")
	fmt.Fprintf(&b, "name = %s\n", quote(s.ruleName(words)))
	fmt.Fprintf(&b, "stages = [%s]\n", quote(string(s.Stage)))
	fmt.Fprintf(&b, "code = \"%d\"\n", s.Reply.Code)
	enhanced := s.Reply.Enhanced
	enhanced = cmp.Or(enhanced, "-")
	fmt.Fprintf(&b, "enhanced = %s\n", quote(enhanced))
	if text := pattern(words); text != "" {
		fmt.Fprintf(&b, "text = %s\n", quote(text))
	}
	class := "class = \"account-fault\""
	if s.Sender != "" {
		class += "\nscope = \"sender\""
	}
	fmt.Fprintln(&b, class)
	fmt.Fprintf(&b, "example = %s\n", quote(mail.Cut(strings.ReplaceAll(s.Reply.String(), "\n", " "), exampleMost)))
	return b.String()
}

// ruleName is made of the first words, as names of rules are written.
func (s Storm) ruleName(words []string) string {
	plain := slices.DeleteFunc(slices.Clone(words), func(w string) bool {
		return strings.ContainsFunc(w, func(r rune) bool { return r < 'a' || r > 'z' })
	})
	if len(plain) == 0 {
		return fmt.Sprintf("storm-%d", s.Reply.Code)
	}
	return "storm-" + strings.Join(plain[:min(4, len(plain))], "-")
}

// pattern finds a text by its words, whatever stands between them.
func pattern(words []string) string {
	escaped := make([]string, 0, ruleWords)
	for _, w := range words[:min(ruleWords, len(words))] {
		escaped = append(escaped, regexp.QuoteMeta(w))
	}
	return strings.Join(escaped, ".*")
}

// quote writes a TOML string.
func quote(s string) string {
	s = mail.Printable(s)
	if !strings.Contains(s, "'") && strings.ContainsAny(s, `\"`) {
		return "'" + s + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
