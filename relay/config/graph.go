package config

import (
	"net/url"
	"slices"
	"strings"

	"postern/relay/upstream/graph"
	"postern/relay/upstream/oauth"
)

// graphHost is the server of the cloud that an upstream by Microsoft Graph is in; "" for other upstreams.
func graphHost(u *Upstream) string {
	if !u.ByGraph() || u.OAuth == nil {
		return ""
	}
	base, err := url.Parse(graph.CloudURL(u.OAuth.Cloud)) // "" for a cloud that validation refuses
	if err != nil {
		return ""
	}
	return base.Hostname()
}

// smtpOnly are keys that mean nothing to Microsoft Graph.
var smtpOnly = []string{"mechanisms", "messages_per_connection", "idle_close", "assume_extensions", "deny_extensions",
	"add_headers", "rule"}

// graph checks what is different with Microsoft Graph.
func (v *validator) graph(key string, u *Upstream) {
	if u.OAuth == nil {
		v.fail(key+".provider", "%s takes access tokens only, write [upstream.oauth]", u.Provider)
	}
	if o := u.OAuth; o != nil && o.Provider != "" &&
		v.oneOf(key+".oauth.provider", o.Provider, oauth.Microsoft, oauth.Google) && o.Provider == oauth.Google {
		v.fail(key+".oauth.provider", "google gives no tokens for %s, remove it", u.Provider)
	}
	if u.TLS == StartTLS || u.TLS == NoTLS {
		v.fail(key+".tls", `%s is reached by HTTPS, remove it`, u.Provider)
	}
	for _, name := range smtpOnly {
		if name = v.written(key, name); name != "" {
			v.fail(name, "is about SMTP and means nothing to %s, remove it", u.Provider)
		}
	}
	if u.MaxConnections > graph.DefaultConnections {
		v.fail(key+".max_connections", "Microsoft Graph takes %d requests at a time for a mailbox, write that or less",
			graph.DefaultConnections)
	}
	v.oneOf(key+".large_mail", u.LargeMail, graph.RefuseLarge, graph.UploadLarge)
	if u.LargeMail == graph.UploadLarge {
		v.graphUpload(key, u)
		return
	}
	if u.MaxMessageSize > graph.DefaultMessageSize {
		v.fail(key+".max_message_size", `Microsoft Graph takes no message over %d octets as it is, write that or `+
			`less, or large_mail = "upload"`, graph.DefaultMessageSize)
	}
}

// graphUpload checks what is different where large mail is rebuilt.
func (v *validator) graphUpload(key string, u *Upstream) {
	if u.MaxMessageSize > graph.MaxUploadSize {
		v.fail(key+".max_message_size", "Exchange Online takes no message over %d octets, write that or less",
			graph.MaxUploadSize)
	}
	if u.DKIM == DKIMSign {
		v.fail(key+".dkim", `"sign" would be the signature of another message where large_mail = "upload" rebuilds `+
			`it, write "skip"; Exchange signs`)
	}
	if u.SendsAsSender() {
		v.warn(key+".large_mail", `"upload" with identity = "sender" needs Mail.ReadWrite for every sender's `+
			`mailbox: the application can read and delete their mail. Unless that is wanted, write identity = `+
			`"username" with a mailbox that has no mail of people, or "refuse"`)
	}
	if o := u.OAuth; o != nil && len(o.Scopes) > 0 && o.Flow.Delegated() && o.Flow != oauth.RefreshToken &&
		!namesScope(o.Scopes, "Mail.ReadWrite") {
		v.warn(key+".oauth.scopes", `name no Mail.ReadWrite, which large_mail = "upload" needs; remove scopes, so `+
			`that a login asks for what is needed, and log in again`)
	}
	if u.OAuth != nil && strings.HasPrefix(u.OAuth.Cloud, "us-gov") {
		v.fail(key+".large_mail", "Microsoft has no upload sessions in the cloud %s, remove it", u.OAuth.Cloud)
	}
}

// SendsForOthers reports whether an upstream may have to send from other addresses than its username: always, unless
// the policies, one of them for everybody, allow that one alone.
func (c *Config) SendsForOthers(u *Upstream) bool {
	itself := func(senders []string) bool {
		other := func(s string) bool { return !strings.EqualFold(s, u.Username) }
		return len(senders) > 0 && !slices.ContainsFunc(senders, other)
	}
	all := false
	for i := range c.Policies {
		p := &c.Policies[i]
		if p.Senders != nil && !itself(p.Senders) {
			return true
		}
		all = all || p.Senders != nil && len(p.Logins)+len(p.Groups)+len(p.Networks)+len(p.Listeners) == 0
	}
	return !all
}

// namesScope reports a scope whose last part begins with a permission, or which asks for all that were granted.
func namesScope(scopes []string, permission string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool {
		last := s[strings.LastIndexByte(s, '/')+1:]
		return strings.HasPrefix(strings.ToLower(last), strings.ToLower(permission)) || last == ".default"
	})
}

// largestMessage is max_message_size where it is not written: what the profile says, and with uploads what Exchange
// takes.
func largestMessage(u *Upstream, profile Size) Size {
	if u.ByGraph() && u.LargeMail == graph.UploadLarge {
		return graph.DefaultUploadSize
	}
	return profile
}

// written is the key of a setting, or of its first element, where the file has it.
func (v *validator) written(key, name string) string {
	key += "." + name
	if v.doc.has(key) {
		return key
	}
	if first := element(key, 0); v.doc.has(first) {
		return first
	}
	return ""
}
