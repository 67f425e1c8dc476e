package oauth

import "testing"

// TestTokensOfLookAlikes: a mailbox in capitals has the token of the mailbox. Letters that Unicode has as capitals of
// ASCII ones, such as the sign of kelvin, are of other logins, which must not get it.
func TestTokensOfLookAlikes(t *testing.T) {
	s, err := NewSource(Options{Upstream: "g", Provider: Google, Flow: ServiceAccount,
		ServiceAccount: serviceAccountFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.mu.Lock()
	kim, capitals, kelvin := s.entryLocked("kim@example.com"), s.entryLocked("KIM@Example.com"),
		s.entryLocked("\u212aim@example.com")
	s.mu.Unlock()
	if capitals != kim {
		t.Error("capitals have another token")
	}
	if kelvin == kim {
		t.Error("the sign of kelvin has the token of kim")
	}
}
