package console

import (
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/policy"
	"postern/relay/config"
)

// TestLoginShowsItsLimits: the page of a login has what is left of each, in both languages.
func TestLoginShowsItsLimits(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.config = config.Parse("relay.toml", []byte("[[policy]]\nlogins = [\"anna\"]\nlisteners = [\"<b>\"]\n"+
			"limits = [\"5 messages/day\"]\n[[policy]]\nlogins = [\"anna\"]\nlimits = [\"2GB/day\", "+
			"\"9 recipients/hour\", \"3 new recipients/day\"]\n[[policy]]\nlimits = []\n"))
	})
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna"}))
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "ben"}))
	r.store.Hurry()
	r.must(r.store.SaveLimits(t.Context(), r.now, []policy.State{{Login: "anna", Limit: "5 messages/day", Tokens: 0,
		At: r.now, Full: r.now.Add(24 * time.Hour)}}))
	for language, wanted := range map[string][]string{
		"en": {"5 of 5 messages in 24 h", "only at &lt;b&gt;", "room again", "GB in 24", "0 of 9 recipients",
			"0 of 3 new recipients"},
		"de": {"5 von 5 Nachrichten in", "nur bei &lt;b&gt;", "wieder Platz", "0 von 3 neuen Empfängern"},
	} {
		page := r.page("/logins/anna", in(language))
		for _, want := range wanted {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q in\n%s", language, want, page[strings.Index(page, "kv"):])
			}
		}
	}
	if page := r.page("/logins/ben"); !strings.Contains(page, "none binds it") {
		t.Error(page)
	}
}

// TestWhoseRuleIsNamed: the page of a login names the rule that its senders are from, in the reader's language where it
// is none of relay.toml.
func TestWhoseRuleIsNamed(t *testing.T) {
	r := newRig(t)
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com"}))
	for language, want := range map[string]string{"en": "where relay.toml has no other", "de": "wo relay.toml keine"} {
		if page := r.page("/logins/anna@example.com", in(language)); !strings.Contains(page, want) ||
			strings.Contains(page, "the default policy") {
			t.Errorf("%s: no %q in\n%s", language, want, page[strings.Index(page, "kv"):])
		}
	}
}
