package oauth

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/fakeprovider"
)

func TestSecretIsNeverShown(t *testing.T) {
	const text = "hunter2hunter2"
	s := NewSecret(text)
	type inner struct {
		hidden Secret
		Shown  Secret
		Ptr    *Secret
		List   []Secret
		Map    map[string]Secret
		Any    any
	}
	values := []any{s, &s, inner{s, s, &s, []Secret{s}, map[string]Secret{"k": s}, s}, &inner{hidden: s, Any: s},
		Token{s, time.Time{}}, []any{s},
		fmt.Errorf("wrapped %v", s), Options{ClientSecret: s, Certificate: s}, struct{ t Token }{Token{AccessToken: s}}}
	var out bytes.Buffer
	for _, v := range values {
		for _, verb := range "vsxXqdpTtbcoOUeEfFgG" {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3", "+#"} {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", v)
			}
		}
		fmt.Fprintln(&out, v)
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
		if x, err := xml.Marshal(v); err == nil {
			out.Write(x)
		}
		_ = gob.NewEncoder(&out).Encode(v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
	}
	for _, form := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text),
		fmt.Sprintf("%v", []byte(text)), text[:8]} {
		if strings.Contains(out.String(), form) {
			t.Errorf("shown as %q", form)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") || NewSecret("").String() != "[none]" || s.Reveal() != text {
		t.Error("not even a sign of it")
	}
}

func TestSecretEqual(t *testing.T) {
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) ||
		NewSecret("a").Equal(Secret{}) || !(Secret{}).Equal(Secret{}) {
		t.Error("Equal")
	}
}

// Nothing that was sent or received is in what people and logs are shown, also when the server repeats it.
func TestErrorsCarryNoSecrets(t *testing.T) {
	a, log := fake(fakeprovider.OAuthOptions{}), new(testkit.Log)
	o := personOptions(a, NewMemoryGrants())
	o.Logger, o.ClientSecret = textLogger(log), NewSecret(secret)
	s := newSource(t, o)
	const refresh = "rt.very-secret-refresh-token"
	putGrant(t, s, refresh)
	for _, f := range []fakeprovider.Fault{
		{Error: "invalid_grant", Description: "the token " + refresh + " of client with secret " + secret + " is bad"},
		{Status: 200, Body: "access_token " + refresh},
		{Status: 500, Body: refresh + secret},
	} {
		a.Fail(f)
		s.Forget()
		_, err := s.Token(t.Context(), mailbox)
		if err == nil {
			t.Fatal("no error")
		}
		fmt.Fprintf(log, "%v %+v %#v", err, err, err)
	}
	if strings.Contains(log.String(), refresh) || strings.Contains(log.String(), secret) {
		t.Errorf("shown:\n%s", log.String())
	}
}
