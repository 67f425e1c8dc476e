package profile

import (
	"fmt"
	"io"
	"strings"
)

// WriteText tells people what the profile knows, what it is not sure of, and how it reads the provider's replies.
func (p *Profile) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", p.Name, p.Title)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-24s %s\n", name, value)
		}
	}
	row("host", p.hostText())
	row("ports", joined(p.Ports))
	row("mechanisms", strings.Join(p.Mechanisms, ", "))
	row("username", p.Username)
	row("password", p.Credential)
	row("max_connections", fmt.Sprint(p.MaxConnections))
	row("messages_per_connection", fmt.Sprint(p.MessagesPerConnection))
	row("idle_close", p.IdleClose.String())
	row("rate", strings.Join(p.Rate, ", "))
	row("max_message_size", p.sizeText())
	row("max_recipients", fmt.Sprint(p.MaxRecipients))
	row("assume_extensions", strings.Join(p.AssumeExtensions, ", "))
	row("deny_extensions", strings.Join(p.DenyExtensions, ", "))
	row("dkim", p.DKIM)
	row("sender_rule", p.SenderRule)
	row("null_sender", p.NullSender)
	row("message_id", p.MessageID)
	row("its own id", p.ReplyIDExample)
	p.DNS.rows(row)
	list(&b, "Notes", p.Notes)
	p.writeRules(&b)
	list(&b, "Not certain, and so not relied on", p.Unsure)
	list(&b, "Sources, as of "+p.Date, p.Sources)
	list(&b, "Sources of what it wants in DNS", p.DNS.Sources)
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Profile) hostText() string {
	if p.Host != "" {
		return p.Host
	}
	if p.Example == "" {
		return "(write it)"
	}
	return "(write it, such as " + p.Example + ")"
}

func (p *Profile) sizeText() string {
	if p.MaxMessageSize == 0 {
		return "as EHLO says"
	}
	return fmt.Sprintf("%d octets", p.MaxMessageSize)
}

func (p *Profile) writeRules(b *strings.Builder) {
	if len(p.Rules) == 0 {
		return
	}
	b.WriteString("\nReplies it knows, in order; those of every smart host come after\n")
	for i := range p.Rules {
		r := &p.Rules[i]
		fmt.Fprintf(b, "  %s: %s\n    %s\n", r.Name, r.effect(), strings.ReplaceAll(r.Example, "\r\n", "\n    "))
	}
}

// effect says what the rule does.
func (r *Rule) effect() string {
	text := r.Class
	if r.Scope != "" {
		text += " of the " + r.Scope
	}
	if r.Slow {
		text += ", fewer at a time"
	}
	if r.Quota > 0 {
		text += ", quota of " + r.Quota.String()
	}
	if r.RetryAfter > 0 {
		text += ", again after " + r.RetryAfter.String()
	}
	if r.Rest {
		text += ", the rest in another transaction"
	}
	if r.Login {
		text += ", log in again"
	}
	return text
}

func list(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	for _, line := range lines {
		fmt.Fprintf(b, "  %s\n", line)
	}
}

func joined(ports []Port) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}
