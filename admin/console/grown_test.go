package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/operate"
)

// TestGrownSelectionIsRefused: what was confirmed is done to no more than was counted.
func TestGrownSelectionIsRefused(t *testing.T) {
	r := newRig(t)
	held := r.message(5, time.Hour)
	held.Held = true
	r.add(held)
	who := person(operate.Admin)
	w := r.ask(who, "POST", "/queue/delete", url.Values{"all": {"1"}, "held": {"1"}})
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Delete 1 message?") {
		t.Fatal(w.Code, w.Body)
	}
	earlier := r.message(2, 2*time.Hour)
	earlier.Held = true
	r.add(earlier)
	answer := r.ask(who, "POST", "/queue/delete", hidden(w.Body.String()))
	if all, _ := r.count(); all != 2 || answer.Code != http.StatusSeeOther {
		t.Errorf("%d messages are left; %d %s", all, answer.Code, answer.Body)
	}
	w = r.ask(who, "POST", "/queue/delete", url.Values{"all": {"1"}, "held": {"1"}})
	r.ask(who, "POST", "/queue/delete", hidden(w.Body.String()))
	if all, _ := r.count(); all != 0 {
		t.Errorf("%d messages are left", all)
	}
}
