package console

import (
	"strings"
	"testing"
)

// TestRepliesStayVerbatim: what others said is not put into German (0038, point 4).
func TestRepliesStayVerbatim(t *testing.T) {
	for _, reply := range []string{"mx7.example.net did not answer in time", "The doctor does not find it any more.",
		"It is not refused any more, or nothing from this sender has been tried for a day"} {
		storm := "The provider refuses google with one text, and hardly anything gets through: " + reply + ". No " +
			"rule knows this text; so many refusals point to the account and not to the messages, so they are not " +
			"believed. Nothing bounces any more, the mail waits or takes the next upstream of its route, and one " +
			"message at a time tries again."
		for _, text := range []string{"It said: " + reply, "It said: 451 4.4.1 " + reply, storm} {
			if said, ok := german.say(text); ok && !strings.Contains(said, reply) {
				t.Errorf("%q\n becomes %q", text, said)
			}
		}
	}
}

// TestNamesGoOverAsTheyAre: a name that begins with an umlaut stays one, where a sentence stands within another.
func TestNamesGoOverAsTheyAre(t *testing.T) {
	const text = "What to do: bücher.example has sent as much as Google allows in 24 hours (500 messages, 2 000 in " +
		"Workspace). The mail waits until there is room"
	for _, name := range []string{"ärzte.example", "anna@example.com"} {
		said, ok := german.say(strings.Replace(text, "bücher.example", name, 1))
		if ok && !strings.Contains(said, name) {
			t.Errorf("%q", said)
		}
	}
}
