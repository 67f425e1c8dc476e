package console

import "testing"

// TestFirstSentence: replies of providers stand whole in it.
func TestFirstSentence(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                                     {},
		"One.":                                 {"One.", ""},
		"No end":                               {"No end", ""},
		"One. Two. Three.":                     {"One.", "Two. Three."},
		"One.\nTwo":                            {"One.", "Two"},
		"v1.2.3 is old. New.":                  {"v1.2.3 is old.", "New."},
		`It said "5.7.1 No. Never." now. Two.`: {`It said "5.7.1 No. Never." now.`, "Two."},
		`Not closed: "5.7.1 No. Two`:           {`Not closed: "5.7.1 No. Two`, ""},
	} {
		first, rest := firstSentence(Said{text, "en"})
		if first.Text != want[0] || rest.Text != want[1] || rest.Lang != "en" {
			t.Errorf("%q: %q and %q", text, first.Text, rest.Text)
		}
	}
}
